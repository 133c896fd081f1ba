package steering

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

func newSteering(t *testing.T) *Steering {
	t.Helper()
	s, err := NewSteering(nil)
	apptest.Must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// appSocket is an app's own socket; the Steering gets duplicates of it.
type appSocket struct {
	t     *testing.T
	fd    int
	inode uint64
}

func newAppSocket(t *testing.T, family int) *appSocket {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	apptest.Must(t, err)
	a := &appSocket{t: t, fd: fd}
	a.inode, _, err = identity(fd)
	apptest.Must(t, err)
	t.Cleanup(func() {
		if a.fd >= 0 {
			unix.Close(a.fd)
		}
	})
	return a
}

func (a *appSocket) duplicate() int {
	a.t.Helper()
	fd, err := unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
	apptest.Must(a.t, err)
	return fd
}

func (a *appSocket) close() {
	a.t.Helper()
	apptest.Must(a.t, unix.Close(a.fd))
	a.fd = -1
}

// accept takes what waits: the connection's descriptor, or -1. It may be a moment before what a client has waits here:
// see accepted.
func (a *appSocket) accept() int {
	fd, _, err := unix.Accept4(a.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1
	}
	return fd
}

func rawSockaddr(at netip.AddrPort) []byte {
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.BigEndian.PutUint16(b[2:], at.Port())
	if at.Addr().Is4() {
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		copy(b[4:], at.Addr().AsSlice())
		return b[:unix.SizeofSockaddrInet4]
	}
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	copy(b[8:], at.Addr().AsSlice())
	return b
}

// bind plays the capture of an app's bind.
func (a *appSocket) bind(s *Steering, m InstanceKey, at netip.AddrPort) (Decision, error) {
	a.t.Helper()
	decision, err := s.Bind(m, a.fd, at)
	if (err != nil) != (decision == Conflict) {
		a.t.Fatal(decision, err)
	}
	sockaddr, err := inetaddr.Sockaddr(at)
	apptest.Must(a.t, err)
	return decision, unix.Bind(a.fd, sockaddr)
}

// serve plays the capture of an app's bind and listen.
func serve(t *testing.T, s *Steering, m InstanceKey, at netip.AddrPort) *appSocket {
	t.Helper()
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	a := newAppSocket(t, family)
	if decision, err := a.bind(s, m, at); decision != Steered || err != nil {
		t.Fatalf("bind of %v: %v, %v", m, decision, err)
	}
	apptest.Must(t, s.Listen(m, a.duplicate(), 64))
	return a
}

// reservePort keeps a free port of the address until the end of the test. Sockets that share it with SO_REUSEPORT, and
// clients with SO_REUSEADDR, can be bound to it.
func reservePort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	at := apptest.FreePort(t, host)
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	a := newAppSocket(t, family)
	apptest.Must(t, unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	apptest.Must(t, unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	sockaddr, err := inetaddr.Sockaddr(at)
	apptest.Must(t, err)
	apptest.Must(t, unix.Bind(a.fd, sockaddr))
	return at
}

// connected makes a connection and returns which of the sockets got it, nil if it was none of them.
func connected(t *testing.T, to netip.AddrPort, from uint16, sockets ...*appSocket) *appSocket {
	t.Helper()
	conn := connect(t, to, from)
	defer conn.Close()
	a, fd := accepted(sockets...)
	unix.Close(fd)
	return a
}

// accepted waits for a connection that a client has. Mostly it is in a queue by then; on a busy machine the kernel may
// hand over the last packet of the handshake later (ksoftirqd).
func accepted(sockets ...*appSocket) (a *appSocket, fd int) {
	for deadline := time.Now().Add(apptest.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, a := range sockets {
			if fd := a.accept(); fd >= 0 {
				return a, fd
			}
		}
	}
	return nil, -1
}

func connect(t *testing.T, to netip.AddrPort, from uint16) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: apptest.Patience}
	if from != 0 {
		local := &net.TCPAddr{Port: int(from)}
		if !to.Addr().IsUnspecified() {
			local.IP = to.Addr().AsSlice()
		}
		d.LocalAddr = local
	}
	// SO_LINGER 0 leaves no TIME_WAIT behind, in which the probe's port could not be used again.
	d.Control = func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
	}
	conn, err := d.Dial("tcp", to.String())
	apptest.Must(t, err)
	return conn
}

func TestSteeringCutsOverAndBack(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, host)
			sockets := map[int]*appSocket{}
			for generation := range 4 {
				sockets[generation] = serve(t, s, InstanceKey{generation, 0}, at)
				if got := connected(t, at, 0, sockets[0]); got == nil {
					t.Fatalf("generation %d has taken a connection before its cutover", generation)
				}
			}
			for range 100 {
				to := rand.IntN(len(sockets))
				if kept, err := s.Steer(Split{Generation: to}); len(kept) > 0 || err != nil {
					t.Fatal(kept, err)
				}
				if got := connected(t, at, 0, sockets[to]); got == nil {
					t.Fatalf("generation %d is selected and got nothing", to)
				}
			}
		})
	}
}

func TestSteeringTellsFamiliesApart(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "0.0.0.0")
	v4 := serve(t, s, InstanceKey{1, 0}, at)
	v6 := serve(t, s, InstanceKey{2, 0}, netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port()))
	kept, err := s.Steer(Split{Generation: 2})
	if !slices.Equal(kept, []string{at.String()}) || err != nil {
		t.Errorf("kept %v, %v", kept, err)
	}
	local := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
	if connected(t, local, 0, v4) == nil {
		t.Error("the address of generation 1 lost its connections")
	}
	if connected(t, netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()), 0, v6) == nil {
		t.Error("the address of generation 2 has no connections")
	}
	if got := s.Addresses(1); !slices.Equal(got, []netip.AddrPort{at}) {
		t.Error(got)
	}
}

func TestSteeringSpreadsOverInstances(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old := serve(t, s, InstanceKey{1, 0}, at)
	sockets := []*appSocket{serve(t, s, InstanceKey{2, 0}, at), serve(t, s, InstanceKey{2, 1}, at), serve(t, s, InstanceKey{2, 2}, at)}
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	got := make(map[*appSocket]int)
	for range 300 {
		a := connected(t, at, 0, append(sockets, old)...)
		if a == nil {
			t.Fatal("nobody got a connection")
		}
		got[a]++
	}
	// Of 300 by chance, fewer than 40 of an expected 100 come once in 10^12 runs.
	if got[old] != 0 || slices.Min([]int{got[sockets[0]], got[sockets[1]], got[sockets[2]]}) < 40 {
		t.Errorf("old %d, %d %d %d", got[old], got[sockets[0]], got[sockets[1]], got[sockets[2]])
	}
}

func TestSteeringBindDecides(t *testing.T) {
	at, m := reservePort(t, "127.0.0.1"), InstanceKey{1, 0}
	anyAddress := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	dual := netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
	tests := []struct {
		name                string
		first, second       InstanceKey
		firstAt, secondAt   netip.AddrPort
		firstAsk, secondAsk bool
		dead                bool
		want                Decision
	}{
		{"twice", m, m, at, at, false, false, false, Conflict},
		{"twice, the second asks", m, m, at, at, false, true, false, Conflict},
		{"twice, the first asks", m, m, at, at, true, false, false, Conflict},
		{"twice, both ask", m, m, at, at, true, true, false, Steered},
		{"the first is dead", m, m, at, at, false, false, true, Steered},
		{"another instance", m, InstanceKey{1, 1}, at, at, false, false, false, Steered},
		{"another generation", m, InstanceKey{2, 0}, at, at, false, false, false, Steered},
		{"wildcard", m, m, at, anyAddress, false, false, false, Conflict},
		{"both families", m, m, at, dual, false, false, false, Conflict},
		{"wildcard of another generation", m, InstanceKey{2, 0}, at, anyAddress, false, false, false, Steered},
	}
	for _, test := range tests {
		for _, listening := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, listening %v", test.name, listening), func(t *testing.T) {
				dead := test.dead
				s, err := NewSteering(func(InstanceKey, uint64) bool { return !dead })
				apptest.Must(t, err)
				defer s.Close()
				first, second := askingSocket(t, test.firstAt, test.firstAsk), askingSocket(t, test.secondAt, test.secondAsk)
				decision, err := first.bind(s, test.first, test.firstAt)
				apptest.Must(t, err)
				if decision != Steered {
					t.Fatal(decision)
				}
				if listening {
					apptest.Must(t, s.Listen(test.first, first.duplicate(), 1))
				}
				decision, err = second.bind(s, test.second, test.secondAt)
				if decision != test.want {
					t.Fatalf("%v, want %v", decision, test.want)
				}
				// SO_REUSEPORT that the second has asked for itself cannot be taken from it.
				if inUse := errors.Is(err, unix.EADDRINUSE); inUse != (test.want == Conflict) && !test.secondAsk {
					t.Errorf("bind: %v", err)
				}
			})
		}
	}
}

// The kernel leads clients to the most specific address without asking a program.
func TestSteeringLetsNobodyTakeClients(t *testing.T) {
	at := reservePort(t, "127.0.0.1")
	host := func(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), at.Port()) }
	for _, test := range []struct {
		name          string
		first, second string
		v6Only        bool // of the second
		taken         bool
	}{
		{"one address after all", "0.0.0.0", "127.0.0.1", false, true},
		{"one address after all of both families", "::", "127.0.0.1", false, true},
		{"IPv4 after both families", "::", "0.0.0.0", false, true},
		{"IPv6 after both families", "::", "::", true, true},
		{"all after one address", "127.0.0.1", "0.0.0.0", false, false},
		{"both families after IPv4", "0.0.0.0", "::", false, false},
		{"another address", "127.0.0.1", "127.0.0.2", false, false},
		{"IPv6 after IPv4", "0.0.0.0", "::", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSteering(t)
			serve(t, s, InstanceKey{1, 0}, host(test.first))
			bind := func(m InstanceKey) (Decision, error) {
				a := askingSocket(t, host(test.second), false)
				if test.v6Only {
					apptest.Must(t, unix.SetsockoptInt(a.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
				}
				return s.Bind(m, a.fd, host(test.second))
			}
			decision, err := bind(InstanceKey{2, 0})
			if (decision == Conflict) != test.taken || (err != nil) != test.taken {
				t.Errorf("a candidate: %v, %v", decision, err)
			}
			if decision, err := bind(InstanceKey{1, 1}); decision != Steered {
				t.Errorf("the generation that serves: %v, %v", decision, err)
			}
		})
	}
	t.Run("where it has listened as well", func(t *testing.T) {
		s := newSteering(t)
		serve(t, s, InstanceKey{1, 0}, host("0.0.0.0"))
		serve(t, s, InstanceKey{1, 1}, at)
		serve(t, s, InstanceKey{2, 0}, at)
	})
}

func TestSitesOfTwoDevicesDoNotCollide(t *testing.T) {
	on := func(device int) groupKey { return groupKey{At: netip.MustParseAddrPort("0.0.0.0:80"), Device: device} }
	for _, test := range []struct {
		one, other int
		want       bool
	}{{0, 0, true}, {0, 1, true}, {1, 0, true}, {1, 1, true}, {1, 2, false}} {
		if got := on(test.one).collides(on(test.other)); got != test.want {
			t.Errorf("devices %d and %d: %v", test.one, test.other, got)
		}
	}
}

func askingSocket(t *testing.T, at netip.AddrPort, ask bool) *appSocket {
	t.Helper()
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	a := newAppSocket(t, family)
	if ask {
		apptest.Must(t, unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	return a
}

func TestSteeringLeavesOthersAlone(t *testing.T) {
	at := reservePort(t, "127.0.0.1")
	tests := []struct {
		name                   string
		family, kind, protocol int
		sockaddr               []byte
		wantError              bool
	}{
		{"datagrams", unix.AF_INET, unix.SOCK_DGRAM, 0, rawSockaddr(at), false},
		{"unix", unix.AF_UNIX, unix.SOCK_STREAM, 0, []byte{unix.AF_UNIX, 0, '/', 'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false},
		{"netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0, []byte{unix.AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false},
		{"port 0", unix.AF_INET, unix.SOCK_STREAM, 0, rawSockaddr(netip.AddrPortFrom(at.Addr(), 0)), false},
		{"short", unix.AF_INET, unix.SOCK_STREAM, 0, rawSockaddr(at)[:8], false},
		{"empty", unix.AF_INET6, unix.SOCK_STREAM, 0, nil, false},
		{"MPTCP", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, rawSockaddr(at), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fd, err := unix.Socket(test.family, test.kind|unix.SOCK_CLOEXEC, test.protocol)
			if err != nil {
				t.Skip(err)
			}
			defer unix.Close(fd)
			decision, err := newSteering(t).Bind(InstanceKey{1, 0}, fd, ParseSockaddr(test.sockaddr))
			if decision != NotSteered || (err != nil) != test.wantError {
				t.Errorf("%v, %v", decision, err)
			}
			if shared, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err == nil && shared != 0 {
				t.Error("SO_REUSEPORT was set")
			}
		})
	}
}

func TestSteeringDoesNotJoinStrangers(t *testing.T) {
	s, stranger := newSteering(t), newSteering(t)
	at := reservePort(t, "127.0.0.1")
	serve(t, stranger, InstanceKey{1, 0}, at)
	if decision, err := newAppSocket(t, unix.AF_INET).bind(s, InstanceKey{1, 0}, at); decision != Conflict || !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v, %v", decision, err)
	}
	decision, err := s.Bind(InstanceKey{1, 0}, askingSocket(t, at, true).fd, at)
	if decision != NotSteered || err == nil {
		t.Errorf("%v, %v", decision, err)
	}
}

func TestSteeringKnowsASocketThatBindsAgain(t *testing.T) {
	s, m := newSteering(t), InstanceKey{1, 0}
	taken, free := apptest.FreePort(t, "127.0.0.1"), apptest.FreePort(t, "127.0.0.2")
	a := newAppSocket(t, unix.AF_INET)
	squatter := newAppSocket(t, unix.AF_INET) // which does not listen: only bind shows that it is there
	sockaddr, err := inetaddr.Sockaddr(taken)
	apptest.Must(t, err)
	apptest.Must(t, unix.Bind(squatter.fd, sockaddr))
	if decision, err := a.bind(s, m, taken); decision != Steered || !errors.Is(err, unix.EADDRINUSE) {
		t.Fatal(decision, err)
	}
	squatter.close()
	if decision, err := a.bind(s, m, taken); decision != Steered || err != nil {
		t.Fatal(decision, err)
	}
	// The app has not asked to share the address, though its socket says so by now.
	if decision, _ := askingSocket(t, taken, true).bind(s, m, taken); decision != Conflict {
		t.Error(decision)
	}
	apptest.Must(t, s.Listen(m, a.duplicate(), 1))
	b := newAppSocket(t, unix.AF_INET)
	if decision, err := s.Bind(m, b.fd, free); decision != Steered || err != nil {
		t.Fatal(decision, err)
	}
	if _, err := b.bind(s, m, netip.AddrPortFrom(free.Addr(), 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(m, b.duplicate(), 1); !errors.Is(err, ErrNotSteered) {
		t.Errorf("a port of the kernel's choice: %v", err)
	}
}

func TestRetiredSocketsEndForAllWhoHaveThem(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old, next := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	apptest.Must(t, s.Retire(InstanceKey{1, 0}))
	if got := connected(t, at, 0, old, next); got != next {
		t.Error("a process that was left over has kept its place in the group")
	}
	later := serve(t, s, InstanceKey{3, 0}, at)
	_, err = s.Steer(Split{Generation: 3})
	apptest.Must(t, err)
	if got := connected(t, at, 0, old, next, later); got != later {
		t.Error("the numbers are wrong")
	}
}

func TestSteeringListenErrors(t *testing.T) {
	s, m, at := newSteering(t), InstanceKey{1, 0}, reservePort(t, "127.0.0.1")
	before := apptest.Descriptors(t)
	a := newAppSocket(t, unix.AF_INET)
	if err := s.Listen(m, a.duplicate(), 1); !errors.Is(err, ErrNotSteered) {
		t.Error(err)
	}
	if _, err := a.bind(s, m, netip.AddrPortFrom(at.Addr(), 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(m, a.duplicate(), 1); !errors.Is(err, ErrNotSteered) {
		t.Error(err)
	}
	connectedSocket := newAppSocket(t, unix.AF_INET)
	if _, err := connectedSocket.bind(s, m, at); err != nil {
		t.Fatal(err)
	}
	peer := hold(t, "127.0.0.1:0")
	name, err := unix.Getsockname(peer.FD())
	apptest.Must(t, err)
	if err := unix.Connect(connectedSocket.fd, name); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	if err := s.Listen(m, connectedSocket.duplicate(), 1); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if after := apptest.Descriptors(t); after != before+3 {
		t.Errorf("%d descriptors became %d with two sockets and a listener", before, after)
	}
}

func TestSteeringSecondListenChangesTheBacklog(t *testing.T) {
	s, m, at := newSteering(t), InstanceKey{1, 0}, reservePort(t, "127.0.0.1")
	a := serve(t, s, m, at)
	before := apptest.Descriptors(t)
	apptest.Must(t, s.Listen(m, a.duplicate(), 17))
	info, err := unix.GetsockoptTCPInfo(a.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	apptest.Must(t, err)
	if info.Sacked != 17 || apptest.Descriptors(t) != before || len(s.Sockets(1)) != 1 {
		t.Errorf("backlog %d, %d descriptors became %d, %v", info.Sacked, before, apptest.Descriptors(t), s.Sockets(1))
	}
}

func TestSteeringSetsTheOwner(t *testing.T) {
	apptest.RequireRoot(t)
	s, at := newSteering(t), apptest.FreePort(t, "127.0.0.1")
	first := newAppSocket(t, unix.AF_INET)
	apptest.Must(t, unix.Fchown(first.fd, apptest.Nobody, -1))
	if _, err := first.bind(s, InstanceKey{1, 0}, at); err != nil {
		t.Fatal(err)
	}
	apptest.Must(t, s.Listen(InstanceKey{1, 0}, first.duplicate(), 1))
	second := serve(t, s, InstanceKey{2, 0}, at)
	if _, uid, err := identity(second.fd); uid != apptest.Nobody || err != nil {
		t.Errorf("uid %d, %v", uid, err)
	}
}

func TestProbesReachOneInstance(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "::"} {
		t.Run(host, func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, host)
			port := reservePort(t, "::").Port()
			current := serve(t, s, InstanceKey{1, 0}, at)
			candidate, other := serve(t, s, InstanceKey{2, 0}, at), serve(t, s, InstanceKey{2, 1}, at)
			for range 20 {
				for m, a := range map[InstanceKey]*appSocket{{2, 0}: candidate, {2, 1}: other} {
					apptest.Must(t, s.probe(port, m))
					checkProbe(t, at, port, a, current)
				}
			}
			apptest.Must(t, s.endProbe(port))
			if connected(t, at, port, current) == nil {
				t.Error("a connection from the port is not ordinary again")
			}
		})
	}
}

// checkProbe connects from the probe's port and from others; through a dual-stack socket by both families.
func checkProbe(t *testing.T, at netip.AddrPort, port uint16, probed, current *appSocket) {
	t.Helper()
	to := []netip.AddrPort{at}
	if at.Addr() == netip.IPv6Unspecified() {
		to = []netip.AddrPort{
			netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()), netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()),
		}
	}
	for _, at := range to {
		if connected(t, at, port, probed) == nil {
			t.Errorf("the probe of %s missed", at)
		}
		if connected(t, at, 0, current) == nil {
			t.Errorf("an ordinary connection to %s strayed", at)
		}
	}
}

// population is what the random test knows without looking into the Steering.
type population struct {
	t          *testing.T
	s          *Steering
	at         netip.AddrPort
	selected   int
	generation int
	alive      map[*appSocket]InstanceKey
	were       map[InstanceKey]bool
}

func (p *population) ofSelected() []*appSocket {
	var found []*appSocket
	for a, m := range p.alive {
		if m.Generation == p.selected {
			found = append(found, a)
		}
	}
	return found
}

// others are what may end: what does not serve.
func (p *population) others() []*appSocket {
	var found []*appSocket
	for a, m := range p.alive {
		if m.Generation != p.selected {
			found = append(found, a)
		}
	}
	return found
}

func (p *population) act(action int) {
	others := p.others()
	switch {
	case action < 4:
		p.generation += rand.IntN(2)
		p.join(InstanceKey{p.generation, rand.IntN(1000)})
	case action < 6 && len(others) > 0:
		p.selected = p.alive[others[rand.IntN(len(others))]].Generation
		_, err := p.s.Steer(Split{Generation: p.selected})
		apptest.Must(p.t, err)
	case action < 8 && len(others) > 0:
		p.retire(others[rand.IntN(len(others))])
	case action < 9 && len(others) > 0:
		a := others[rand.IntN(len(others))]
		apptest.Must(p.t, unix.Shutdown(a.fd, unix.SHUT_RD))
		delete(p.alive, a)
	case len(p.ofSelected()) > 1:
		p.retire(p.ofSelected()[0])
	}
}

// join takes no member twice: one whose socket was shut down still has it, and its bind would conflict.
func (p *population) join(m InstanceKey) {
	if p.were[m] {
		return
	}
	p.were[m] = true
	p.alive[serve(p.t, p.s, m, p.at)] = m
}

func (p *population) retire(a *appSocket) {
	a.close()
	apptest.Must(p.t, p.s.Retire(p.alive[a]))
	delete(p.alive, a)
}

// check connects to the selected generation, and probes each socket: the numbers of all have to be the kernel's.
func (p *population) check(port uint16) {
	p.t.Helper()
	_, err := p.s.Queued(p.selected) // sees who has left
	apptest.Must(p.t, err)
	apptest.Must(p.t, p.s.endProbe(port))
	selected := p.ofSelected()
	if connected(p.t, p.at, 0, selected...) == nil {
		p.t.Fatalf("a connection did not reach generation %d: %v", p.selected, p.numbers())
	}
	for a, m := range p.alive {
		apptest.Must(p.t, p.s.probe(port, m))
		if connected(p.t, p.at, port, a) == nil {
			p.t.Fatalf("%v is not where it should be: %v", m, p.numbers())
		}
	}
}

func (p *population) numbers() string {
	text := ""
	for _, g := range p.s.groups {
		for _, member := range g.Members {
			text += fmt.Sprintf(" %v:%d", member.InstanceKey, member.State)
		}
	}
	return text
}

func TestSteeringNumbersSocketsAsTheKernelDoes(t *testing.T) {
	for range 4 {
		p := &population{t: t, s: newSteering(t), at: reservePort(t, "127.0.0.1"), alive: make(map[*appSocket]InstanceKey), were: make(map[InstanceKey]bool)}
		p.join(InstanceKey{0, 0})
		port := reservePort(t, "::").Port()
		for range 80 {
			p.act(rand.IntN(10))
			p.check(port)
		}
	}
}

// The dead have no app that accepts: a connection that one of them gets is never answered.
func TestRetiredSocketsGetNothing(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	current := startServers(t, s, 1, at)
	stop := loadOn(t, at)
	for generation := 2; generation < 60; generation++ {
		next := startServers(t, s, generation, at)
		_, err := s.Steer(Split{Generation: generation})
		apptest.Must(t, err)
		current.stop(t, s)
		current = next
		if open := len(s.groups[groupKey{At: at}].Members); open > 6 {
			t.Fatalf("%d sockets are open after generation %d", open, generation)
		}
	}
	if answered := stop(); answered == 0 {
		t.Error("nobody was answered")
	}
	current.stop(t, s)
}

// servers are the instances of one generation, each of which accepts, answers with its generation's number, and closes.
type servers struct {
	generation int
	sockets    []*appSocket
	accepting  sync.WaitGroup
	ending     atomic.Bool
}

func startServers(t *testing.T, s *Steering, generation int, at netip.AddrPort) *servers {
	t.Helper()
	v := &servers{generation: generation}
	for instance := range 1 + generation%3 {
		a := serve(t, s, InstanceKey{generation, instance}, at)
		v.sockets = append(v.sockets, a)
		v.accepting.Go(func() { v.accept(a.fd) })
	}
	t.Cleanup(v.end)
	return v
}

func (v *servers) accept(fd int) {
	for {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			_, _ = unix.Write(conn, []byte{byte(v.generation)})
			unix.Close(conn)
		case v.ending.Load():
			return
		default:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1)
		}
	}
}

func (v *servers) end() {
	v.ending.Store(true)
	v.accepting.Wait()
}

// stop ends them as the supervisor does: once nothing waits for them.
func (v *servers) stop(t *testing.T, s *Steering) {
	t.Helper()
	apptest.Eventually(t, "the queue is empty", func() bool {
		queued, err := s.Queued(v.generation)
		apptest.Must(t, err)
		return queued == 0
	})
	v.end()
	for instance, a := range v.sockets {
		a.close()
		apptest.Must(t, s.Retire(InstanceKey{v.generation, instance}))
	}
}

// loadOn connects again and again until it is stopped, which tells how many were answered. Every one has to be.
func loadOn(t *testing.T, at netip.AddrPort) (stop func() int64) {
	ctx, cancel := context.WithCancel(t.Context())
	var answered atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := askOnce(at); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	stop = func() int64 {
		cancel()
		clients.Wait()
		return answered.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}

func askOnce(at netip.AddrPort) (generation int, err error) {
	conn, err := net.DialTimeout("tcp", at.String(), apptest.Patience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(apptest.Patience)); err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && len(answer) != 1 {
		err = fmt.Errorf("%d bytes", len(answer))
	}
	if err != nil {
		return 0, err
	}
	return int(answer[0]), nil
}

func TestCutoverLosesNoConnection(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	generations := []*servers{startServers(t, s, 0, at), startServers(t, s, 1, at)}
	stop := loadOn(t, at)
	for turn := 1; turn <= 1000; turn++ {
		_, err := s.Steer(Split{Generation: turn % 2})
		apptest.Must(t, err)
		// A connection that begins after the cutover has returned belongs to the new generation.
		if got, err := askOnce(at); got != turn%2 || err != nil {
			t.Fatalf("generation %d answered after the cutover to %d, %v", got, turn%2, err)
		}
	}
	if answered := stop(); answered == 0 {
		t.Error("nobody was answered")
	}
	for _, v := range generations {
		v.stop(t, s)
	}
}

func TestNothingComesAfterTheQueueIsEmpty(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old, next := startServers(t, s, 0, at), startServers(t, s, 1, at)
	stop := loadOn(t, at)
	for range 30 {
		_, err := s.Steer(Split{Generation: 1})
		apptest.Must(t, err)
		apptest.Eventually(t, "the queue is empty", func() bool {
			queued, err := s.Queued(0)
			apptest.Must(t, err)
			return queued == 0
		})
		old.end()
		for range 50 {
			if _, err := askOnce(at); err != nil {
				t.Fatal(err)
			}
		}
		if fd := old.sockets[0].accept(); fd >= 0 {
			t.Fatal("a connection came to the generation that had an empty queue")
		}
		old.ending.Store(false)
		old.accepting.Go(func() { old.accept(old.sockets[0].fd) })
		_, err = s.Steer(Split{Generation: 0})
		apptest.Must(t, err)
	}
	stop()
	old.stop(t, s)
	next.stop(t, s)
}

func TestQueuedCountsHandshakesThatBeganBefore(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old, next := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
	// With TCP_DEFER_ACCEPT a handshake ends with the first data, as elsewhere with an ACK that takes its time.
	for _, a := range []*appSocket{old, next} {
		apptest.Must(t, unix.SetsockoptInt(a.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30))
	}
	conn := connect(t, at, 0)
	defer conn.Close()
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	checkQueued(t, s, 1, 1)
	later := connect(t, at, 0)
	defer later.Close()
	checkQueued(t, s, 1, 1)
	checkQueued(t, s, 2, 0)
	_, err = conn.Write([]byte("x"))
	apptest.Must(t, err)
	checkQueued(t, s, 1, 1)
	a, fd := accepted(old)
	if a == nil {
		t.Error("the connection did not come to the generation that had got its SYN")
	}
	unix.Close(fd)
	checkQueued(t, s, 1, 0)
}

func checkQueued(t *testing.T, s *Steering, generation, want int) {
	t.Helper()
	apptest.Eventually(t, fmt.Sprintf("%d are queued for generation %d", want, generation), func() bool {
		got, err := s.Queued(generation)
		apptest.Must(t, err)
		return got == want
	})
}

func TestQueuesAreToldByAddress(t *testing.T) {
	s, both, one := newSteering(t), reservePort(t, "127.0.0.1"), reservePort(t, "127.0.0.1")
	serve(t, s, InstanceKey{1, 0}, both)
	serve(t, s, InstanceKey{1, 0}, one)
	serve(t, s, InstanceKey{2, 0}, both)
	for range 2 {
		defer connect(t, one, 0).Close()
	}
	for generation, want := range []map[netip.AddrPort]int{{}, {both: 0, one: 2}, {both: 0}} {
		got := map[netip.AddrPort]int{}
		for _, queue := range s.Queues(generation) {
			got[queue.Bound] = queue.Length
		}
		if !maps.Equal(got, want) {
			t.Errorf("generation %d has the queues %v, not %v", generation, got, want)
		}
	}
}

func TestParseSockaddr(t *testing.T) {
	for _, written := range []string{"127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:1", "0.0.0.0:65535"} {
		at := netip.MustParseAddrPort(written)
		if got := ParseSockaddr(rawSockaddr(at)); got != at {
			t.Errorf("%s: %v", written, got)
		}
	}
	v6 := rawSockaddr(netip.MustParseAddrPort("[::1]:80"))
	if got := ParseSockaddr(v6[:24]); got.Port() != 80 {
		t.Errorf("without its last field: %v", got)
	}
	for name, sockaddr := range map[string][]byte{
		"nothing": nil, "a path": append([]byte{unix.AF_UNIX, 0, '/', 'x'}, make([]byte, 20)...),
		"port 0": rawSockaddr(netip.MustParseAddrPort("0.0.0.0:0")), "short": v6[:23],
	} {
		if got := ParseSockaddr(sockaddr); got != (netip.AddrPort{}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAddressesStayOpenForASuccessor(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "::"} {
		t.Run(host, func(t *testing.T) { checkStaysOpen(t, reservePort(t, host)) })
	}
}

func checkStaysOpen(t *testing.T, at netip.AddrPort) {
	s, m := newSteering(t), InstanceKey{1, 0}
	dead := serve(t, s, m, at)
	apptest.Must(t, unix.SetNonblock(dead.fd, false))
	dead.close()
	apptest.Must(t, s.Vacate(m))
	conn := connect(t, at, 0)
	defer conn.Close()
	checkQueued(t, s, 1, 1)
	if len(s.Sockets(1)) != 0 || len(s.Addresses(1)) != 1 {
		t.Error(s.Sockets(1), s.Addresses(1))
	}
	next := askingSocket(t, at, false)
	if !s.Left(m, next.fd, at) || s.Left(m, next.fd, reservePort(t, "127.0.0.1")) {
		t.Error("it does not tell what is left")
	}
	fd, err := s.Take(m, next.fd, at)
	apptest.Must(t, err)
	if again, err := s.Take(m, next.fd, at); again != -1 || err != nil {
		t.Error(again, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: the successor's socket did not block", flags, err)
	}
	apptest.Must(t, unix.Dup3(fd, next.fd, unix.O_CLOEXEC))
	apptest.Must(t, unix.Close(fd))
	apptest.Must(t, s.Listen(m, next.duplicate(), 5))
	a, fd := accepted(next)
	if a == nil {
		t.Fatal("what waited for the dead instance did not come to its successor")
	}
	unix.Close(fd)
	if connected(t, at, 0, next) == nil || len(s.Sockets(1)) != 1 {
		t.Error("the successor does not serve")
	}
}

// closeBeforeClient closes a member's socket, and gives a client that waits in it then.
func closeBeforeClient(t *testing.T, s *Steering, a *appSocket, m InstanceKey, at netip.AddrPort) net.Conn {
	t.Helper()
	closed := a.inode
	s.live = func(_ InstanceKey, inode uint64) bool { return inode != closed }
	a.close()
	conn := connect(t, at, 0)
	t.Cleanup(func() { conn.Close() })
	checkQueued(t, s, m.Generation, 1)
	return conn
}

// An app that closes its listener and binds again takes up its clients, with or without an old generation beside it.
func TestRebindTakesUpWhoWaits(t *testing.T) {
	for name, generations := range map[string]int{"alone": 1, "while an old generation finishes": 2} {
		t.Run(name, func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, "127.0.0.1")
			var before *appSocket
			for generation := range generations {
				before = serve(t, s, InstanceKey{generation + 1, 0}, at)
			}
			m := InstanceKey{generations, 0}
			_, err := s.Steer(Split{Generation: m.Generation})
			apptest.Must(t, err)
			closeBeforeClient(t, s, before, m, at)
			next := askingSocket(t, at, false)
			fd, err := s.Take(m, next.fd, at)
			apptest.Must(t, err)
			apptest.Must(t, unix.Dup3(fd, next.fd, unix.O_CLOEXEC))
			apptest.Must(t, unix.Close(fd))
			s.live = func(InstanceKey, uint64) bool { return true }
			apptest.Must(t, s.Listen(m, next.duplicate(), 5))
			a, fd := accepted(next)
			if a == nil {
				t.Fatal("who waited was left")
			}
			apptest.Must(t, unix.Close(fd))
		})
	}
}

// Where the app's new socket cannot be replaced, who waits in the one that it has closed is sent away, and not left
// there for as long as an old generation takes.
func TestWhoWaitsInAClosedSocketIsSentAway(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old := serve(t, s, InstanceKey{1, 0}, at)
	closed := serve(t, s, InstanceKey{2, 0}, at)
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	conn := closeBeforeClient(t, s, closed, InstanceKey{2, 0}, at)
	next := serve(t, s, InstanceKey{2, 0}, at)
	apptest.Must(t, conn.SetReadDeadline(time.Now().Add(apptest.Patience)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("who waited got %v", err)
	}
	if connected(t, at, 0, next) == nil {
		t.Error("a connection strayed")
	}
	apptest.Must(t, s.Retire(InstanceKey{1, 0}))
	old.close()
}

func TestTakeThatFailsLeavesTheSocketToBeTaken(t *testing.T) {
	s, at, m := newSteering(t), reservePort(t, "127.0.0.1"), InstanceKey{1, 0}
	serve(t, s, m, at).close()
	apptest.Must(t, s.Vacate(m))
	next := askingSocket(t, at, false)
	var limit unix.Rlimit
	apptest.Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	apptest.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: limit.Max}))
	fd, err := s.Take(m, next.fd, at)
	apptest.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if fd >= 0 || err == nil {
		t.Fatalf("took %d, %v without a descriptor left", fd, err)
	}
	if fd, err = s.Take(m, next.fd, at); fd < 0 || err != nil {
		t.Fatalf("took %d, %v afterwards", fd, err)
	}
	apptest.Must(t, unix.Close(fd))
}

func TestVacantSocketsEndWithTheirSuccessor(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	serve(t, s, InstanceKey{1, 0}, at).close()
	other := serve(t, s, InstanceKey{1, 1}, at)
	apptest.Must(t, s.Vacate(InstanceKey{1, 0}))
	for range 30 {
		if connected(t, at, 0, other) == nil {
			t.Fatal("a connection went to a vacant socket, though another instance serves")
		}
	}
	next := serve(t, s, InstanceKey{1, 0}, at)
	if got := len(s.groups[groupKey{At: at}].Members); got != 2 {
		t.Errorf("%d sockets", got)
	}
	if connected(t, at, 0, other, next) == nil {
		t.Error("a connection strayed")
	}
}

func TestAddressWithOnlyRetiredSocketsIsClosed(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	for instance := range 3 {
		serve(t, s, InstanceKey{1, instance}, at).close()
	}
	for instance := range 3 {
		apptest.Must(t, s.Retire(InstanceKey{1, instance}))
	}
	if _, err := net.Dial("tcp", at.String()); !errors.Is(err, unix.ECONNREFUSED) || len(s.Addresses(1)) != 0 {
		t.Error(err, s.Addresses(1))
	}
}

func TestSocketsThatTheAppClosedGetNothing(t *testing.T) {
	at, m, second := reservePort(t, "127.0.0.1"), InstanceKey{1, 0}, InstanceKey{1, 1}
	closed := make(map[uint64]bool)
	s, err := NewSteering(func(_ InstanceKey, inode uint64) bool { return !closed[inode] })
	apptest.Must(t, err)
	defer s.Close()
	first := serve(t, s, m, at)
	first.close()
	closed[first.inode] = true
	reopened := serve(t, s, m, at)
	other := serve(t, s, second, at)
	if got := len(s.Sockets(1)); got != 2 {
		t.Errorf("%d sockets", got)
	}
	other.close()
	closed[other.inode] = true
	apptest.Must(t, s.Forget(other.inode))
	for range 30 {
		if connected(t, at, 0, reopened) == nil {
			t.Fatal("a connection strayed")
		}
	}
	reopened.close()
	closed[reopened.inode] = true
	apptest.Must(t, s.Forget(reopened.inode))
	if _, err := net.Dial("tcp", at.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
}

func TestMake(t *testing.T) {
	for _, written := range []string{"127.0.0.1:0", "[::1]:0", "tcp6://:0", ":0", "localhost:0", "tcp4://:0?backlog=7"} {
		t.Run(written, func(t *testing.T) {
			a, err := socket.ParseAddress("web=" + written)
			apptest.Must(t, err)
			s := newSteering(t)
			sockets := make([]*appSocket, 2)
			for i := range sockets {
				sockets[i] = makeSocket(t, s, InstanceKey{i, 0}, a)
			}
			at := s.Addresses(0)
			if len(at) != 1 || at[0].Port() == 0 || !slices.Equal(at, s.Addresses(1)) {
				t.Fatal(at, s.Addresses(1))
			}
			if connected(t, at[0], 0, sockets[0]) == nil {
				t.Error("the first generation got nothing")
			}
			_, err = s.Steer(Split{Generation: 1})
			apptest.Must(t, err)
			if connected(t, at[0], 0, sockets[1]) == nil {
				t.Error("the second generation got nothing")
			}
		})
	}
}

func makeSocket(t *testing.T, s *Steering, m InstanceKey, a socket.Address) *appSocket {
	t.Helper()
	fd, err := s.Make(m, a)
	apptest.Must(t, err)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 || !apptest.CloseOnExec(fd) {
		t.Errorf("flags %#x, %v", flags, err)
	}
	apptest.Must(t, unix.SetNonblock(fd, true))
	t.Cleanup(func() { unix.Close(fd) })
	return &appSocket{t: t, fd: fd}
}

func TestMakeRefuses(t *testing.T) {
	before := apptest.Descriptors(t)
	held := hold(t, "127.0.0.1:0")
	s := newSteering(t)
	open := apptest.Descriptors(t)
	for _, written := range []string{held.Bound(), "udp://127.0.0.1:0", "unix:///tmp/x", "192.0.2.1:80"} {
		a, err := socket.ParseAddress(written)
		apptest.Must(t, err)
		_, err = s.Make(InstanceKey{1, 0}, a)
		if inUse := (*socket.InUseError)(nil); err == nil || errors.As(err, &inUse) != (written == held.Bound()) {
			t.Errorf("%s: %v", written, err)
		}
	}
	if after := apptest.Descriptors(t); after != open {
		t.Errorf("%d descriptors became %d", open, after)
	}
	apptest.Must(t, errors.Join(s.Close(), s.Close(), held.Close()))
	if after := apptest.Descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

func TestSteeringTellsWhoLeft(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old, current, last := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at), serve(t, s, InstanceKey{3, 0}, at)
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	for _, a := range []*appSocket{old, current} {
		go func() { _ = unix.Shutdown(a.fd, unix.SHUT_RD) }()
		if left, err := s.Wait(); left.Inode != a.inode || left.Bound != at || err != nil {
			t.Fatal(left, err)
		}
	}
	if connected(t, at, 0, last) == nil {
		t.Error("nobody was selected in the place of what left")
	}
	apptest.Must(t, s.Listen(InstanceKey{2, 0}, current.duplicate(), 9))
	_, err = s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	if connected(t, at, 0, current) == nil {
		t.Error("a socket that listens again is no member")
	}
	apptest.Must(t, unix.Shutdown(last.fd, unix.SHUT_RD))
	if _, err := s.Queued(3); err != nil { // sees it before the next Wait does
		t.Error(err)
	}
	if left, err := s.Wait(); left.Inode != last.inode || err != nil {
		t.Error(left, err)
	}
}

func TestWhatOthersSawIsToldToo(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	told := make(chan SteeredSocket)
	go func() {
		for left, err := s.Wait(); err == nil; left, err = s.Wait() {
			told <- left
		}
		close(told)
	}()
	for generation := range 100 {
		a := serve(t, s, InstanceKey{generation, 0}, at)
		apptest.Must(t, unix.Shutdown(a.fd, unix.SHUT_RD))
		s.Sockets(1)
		if left := <-told; left.Inode != a.inode {
			t.Fatal(left)
		}
	}
	apptest.Must(t, s.Close())
	<-told
}

func TestSteeringCloses(t *testing.T) {
	at := reservePort(t, "127.0.0.1")
	before := apptest.Descriptors(t)
	s := newSteering(t)
	a := serve(t, s, InstanceKey{1, 0}, at)
	ended := make(chan error)
	for range 2 {
		go func() {
			_, err := s.Wait()
			ended <- err
		}()
	}
	apptest.Must(t, s.Close())
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if connected(t, at, 0, a) == nil {
		t.Error("the app's socket was closed too")
	}
	a.close()
	if after := apptest.Descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

func TestConnectionsDoNotWakeTheSteering(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	a := serve(t, s, InstanceKey{1, 0}, at)
	thread := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		_, _ = s.Wait()
	}()
	tid := <-thread
	apptest.AwaitState(t, "(*Steering).Wait")
	before := apptest.Switches(t, tid)
	for range 1000 {
		if connected(t, at, 0, a) == nil {
			t.Fatal("a connection strayed")
		}
	}
	if woken := apptest.Switches(t, tid) - before; woken > apptest.Signals {
		t.Errorf("woken %d times by 1000 connections", woken)
	}
}
