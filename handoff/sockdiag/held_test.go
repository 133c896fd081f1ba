package sockdiag

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// heldListener is a socket as grace holds them.
type heldListener struct {
	fd             int
	network, bound string
}

func (l *heldListener) FD() int         { return l.fd }
func (l *heldListener) Network() string { return l.network }
func (l *heldListener) Bound() string   { return l.bound }
func (l *heldListener) Stream() bool    { return l.kind() == unix.SOCK_STREAM }

func (l *heldListener) kind() int {
	if strings.HasPrefix(l.network, "udp") {
		return unix.SOCK_DGRAM
	}
	return unix.SOCK_STREAM
}

// listenAt binds "network://address", or an address of TCP's, until the end of the test, and listens on what can.
func listenAt(t *testing.T, written string) *heldListener {
	t.Helper()
	network, addr, ok := strings.Cut(written, "://")
	if !ok {
		network, addr = "tcp", written
	}
	l := &heldListener{network: network}
	family, sockaddr := sockaddrOf(network, addr)
	var err error
	l.fd, err = unix.Socket(family, l.kind()|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	t.Cleanup(func() { unix.Close(l.fd) })
	if family == unix.AF_INET6 {
		apptest.Must(t, unix.SetsockoptInt(l.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	apptest.Must(t, unix.Bind(l.fd, sockaddr))
	if l.Stream() {
		apptest.Must(t, unix.Listen(l.fd, -1))
	}
	name, err := unix.Getsockname(l.fd)
	apptest.Must(t, err)
	l.bound = nameOf(name)
	return l
}

func sockaddrOf(network, addr string) (family int, sockaddr unix.Sockaddr) {
	if network == "unix" {
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: addr}
	}
	if addr[0] == ':' {
		addr = "[::]" + addr
	}
	at := netip.MustParseAddrPort(addr)
	if at.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
}

func nameOf(name unix.Sockaddr) string {
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port)).String()
	}
	return name.(*unix.SockaddrUnix).Name
}
