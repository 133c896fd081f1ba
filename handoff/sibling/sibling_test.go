package sibling

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { apptest.Main(m) }

func number(n int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

// others is a value of each inherited option that is not its default.
var others = map[option][]byte{
	{unix.IPPROTO_IP, unix.IP_TOS}:              number(0x10),
	{unix.IPPROTO_IP, unix.IP_TTL}:              number(33),
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER}:     number(unix.IP_PMTUDISC_PROBE),
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:       number(0x20),
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}: number(44),
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER}: number(unix.IPV6_PMTUDISC_PROBE),
	{unix.SOL_SOCKET, unix.SO_PRIORITY}:         number(5), // another one than IP_TOS implies
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE}:        number(1),
	{unix.SOL_SOCKET, unix.SO_LINGER}:           append(number(1), number(9)...),
	{unix.SOL_SOCKET, unix.SO_MARK}:             number(77),
	{unix.SOL_SOCKET, unix.SO_OOBINLINE}:        number(1),
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT}:         number(2),
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO}:         timeval(3),
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO}:         timeval(4),
	{unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE}:  number(1 << 20),
	{unix.IPPROTO_TCP, unix.TCP_CONGESTION}:     []byte("reno"),
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG}:         number(1000),
	{unix.IPPROTO_TCP, unix.TCP_NODELAY}:        number(1),
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:       number(77),
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}:      number(7),
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}:        number(3),
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}:   number(12345),
	{unix.IPPROTO_TCP, unix.TCP_LINGER2}:        number(11),
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}:   number(1),
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP}:   number(1 << 15),
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT}:  number(4096),
}

func timeval(seconds int64) []byte {
	return binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, uint64(seconds)), 0)
}

// listen gives one of the kernel's choice of port, with queue and SO_REUSEPORT.
func listen(t *testing.T, family int) int {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	apptest.Must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	var at unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 {
		at = &unix.SockaddrInet6{}
	}
	apptest.Must(t, unix.Bind(fd, at))
	apptest.Must(t, unix.Listen(fd, 33))
	apptest.Must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	return fd
}

// beside gives a sibling that listens.
func beside(t *testing.T, listening int) int {
	t.Helper()
	fd, err := Bind(listening)
	apptest.Must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestConnectionsInheritTheSame(t *testing.T) {
	apptest.RequireRoot(t) // for SO_MARK
	for name, family := range map[string]int{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6} {
		t.Run(name, func(t *testing.T) {
			first := listen(t, family)
			for _, o := range inherited {
				if o.level == unix.IPPROTO_IPV6 && family == unix.AF_INET {
					continue
				}
				before, err := o.get(first)
				apptest.Must(t, err)
				apptest.Must(t, o.set(first, others[o]))
				if after, err := o.get(first); err != nil || bytes.Equal(before, after) {
					t.Errorf("option %d of level %d is %v as by default, %v: this shows nothing", o.name, o.level, before, err)
				}
			}
			apptest.Must(t, unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<15))
			apptest.Must(t, unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<16))
			second := beside(t, first)
			apptest.Must(t, Inherit(second, first))
			for _, o := range append(inherited, option{unix.SOL_SOCKET, unix.SO_RCVBUF}, option{unix.SOL_SOCKET, unix.SO_SNDBUF}) {
				want, failed := o.get(first)
				if got, err := o.get(second); !bytes.Equal(got, want) || (err == nil) != (failed == nil) {
					t.Errorf("option %d of level %d is %v, and not %v", o.name, o.level, got, want)
				}
			}
		})
	}
}

func TestSiblingIsAtTheSameAddress(t *testing.T) {
	first := listen(t, unix.AF_INET)
	second := beside(t, first)
	apptest.Must(t, unix.Listen(second, Backlog(first)))
	if n := Backlog(second); n != 33 {
		t.Errorf("%d clients can wait, and not 33", n)
	}
	one, err := unix.Getsockname(first)
	apptest.Must(t, err)
	two, err := unix.Getsockname(second)
	apptest.Must(t, err)
	if *one.(*unix.SockaddrInet4) != *two.(*unix.SockaddrInet4) {
		t.Errorf("it is at %v, and not at %v", two, one)
	}
}

// Another user's socket may not share the address.
func TestSiblingBelongsToTheSameUser(t *testing.T) {
	apptest.RequireRoot(t)
	first := listen(t, unix.AF_INET)
	apptest.Must(t, unix.Fchown(first, apptest.Nobody, -1))
	second := beside(t, first)
	var stat unix.Stat_t
	apptest.Must(t, unix.Fstat(second, &stat))
	if stat.Uid != apptest.Nobody {
		t.Errorf("it is of user %d", stat.Uid)
	}
}

func TestAddressIsSharedNoMore(t *testing.T) {
	apptest.RequireRoot(t)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		first := listen(t, family)
		apptest.Must(t, unix.Close(beside(t, first)))
		apptest.Must(t, Unshare(first))
		if fd, err := Bind(first); err != unix.EADDRINUSE {
			t.Errorf("bind beside it: %v", os.NewSyscallError("bind", err))
			unix.Close(fd)
		}
	}
}
