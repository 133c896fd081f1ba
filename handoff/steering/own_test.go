package steering

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

var (
	first  = InstanceKey{Generation: 1}
	second = InstanceKey{Generation: 2}
)

// reserve binds an address of which every instance is to have a socket of its own.
func reserve(t *testing.T, written string) *socket.Listener {
	t.Helper()
	a, err := socket.ParseAddress(written)
	apptest.Must(t, err)
	l, err := socket.Bind(a)
	apptest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// own is an instance's socket, which it keeps.
func own(t *testing.T, s *Steering, m InstanceKey, l *socket.Listener) *appSocket {
	t.Helper()
	given, err := s.Own(m, l)
	apptest.Must(t, err)
	if given.Bound() != l.Bound() || given.Name() != l.Name() || given.Inode() == l.Inode() {
		t.Errorf("it is %s at %s, inode %d", given.Name(), given.Bound(), given.Inode())
	}
	a := &appSocket{t: t, inode: given.Inode()}
	a.fd, err = unix.FcntlInt(uintptr(given.FD()), unix.F_DUPFD_CLOEXEC, 0)
	apptest.Must(t, err)
	apptest.Must(t, given.Close())
	apptest.Must(t, unix.SetNonblock(a.fd, true))
	t.Cleanup(func() {
		if a.fd >= 0 {
			unix.Close(a.fd)
		}
	})
	return a
}

func TestReservedAddressTakesNoConnections(t *testing.T) {
	l := reserve(t, "127.0.0.1:0?steer=true")
	if conn, err := net.Dial("tcp", l.Bound()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a connection comes to %v, %v", conn, err)
	}
}

func TestEachInstanceHasItsOwnSocket(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		s, l := newSteering(t), reserve(t, "web="+host+":0?steer=true")
		at := netip.MustParseAddrPort(l.Bound())
		one, two := own(t, s, first, l), own(t, s, second, l)
		if connected(t, at, 0, one, two) != one {
			t.Errorf("%s: a connection before the cutover did not come to the first generation", host)
		}
		_, err := s.Steer(Split{Generation: 2})
		apptest.Must(t, err)
		if connected(t, at, 0, one, two) != two {
			t.Errorf("%s: a connection after the cutover did not come to the second generation", host)
		}
	}
}

func TestSuccessorOwnsWhatWaits(t *testing.T) {
	s, l := newSteering(t), reserve(t, "127.0.0.1:0?steer=true")
	before := own(t, s, first, l)
	conn := connect(t, netip.MustParseAddrPort(l.Bound()), 0)
	defer conn.Close()
	before.close()
	apptest.Must(t, s.Vacate(first))
	after := own(t, s, first, l)
	a, fd := accepted(after)
	if a == nil || after.inode != before.inode {
		t.Errorf("the successor has socket %d instead of %d, and accepts %d", after.inode, before.inode, fd)
	}
	unix.Close(fd)
}

func TestOwnNeedsAListener(t *testing.T) {
	s, l := newSteering(t), reserve(t, "127.0.0.1:0?steer=true")
	apptest.Must(t, l.Close())
	if _, err := s.Own(first, l); err == nil {
		t.Error("it takes one that is closed")
	}
}

// A fresh socket is bound, and a member when the app listens on it.
func TestFreshTakesThePlaceOfAnAppsSocket(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		s, at := newSteering(t), reservePort(t, host)
		fresh := map[InstanceKey]*appSocket{}
		for _, m := range []InstanceKey{first, second} {
			fd, err := s.Fresh(m, at)
			apptest.Must(t, err)
			a := &appSocket{t: t, fd: fd}
			t.Cleanup(func() { unix.Close(a.fd) })
			apptest.Must(t, unix.SetNonblock(fd, true))
			apptest.Must(t, s.Listen(m, a.duplicate(), 16))
			fresh[m] = a
		}
		if connected(t, at, 0, fresh[first], fresh[second]) != fresh[first] {
			t.Errorf("%s: a connection did not come to the first generation", host)
		}
	}
}

func TestFreshGivesWhatWaits(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	before := serve(t, s, first, at)
	before.close()
	apptest.Must(t, s.Vacate(first))
	fd, err := s.Fresh(first, at)
	apptest.Must(t, err)
	defer unix.Close(fd)
	if inode, _, err := identity(fd); inode != before.inode || err != nil {
		t.Errorf("it is socket %d instead of %d, %v", inode, before.inode, err)
	}
}

func TestFreshIsOfIPv6OnlyBesideIPv4(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	serve(t, s, first, at)
	for m, want := range map[InstanceKey]bool{first: true, {Generation: 1, Instance: 1}: false} {
		fd, err := s.Fresh(m, netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port()))
		apptest.Must(t, err)
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if apptest.Must(t, err); only != 0 != want {
			t.Errorf("%v: IPV6_V6ONLY is %d", m, only)
		}
		apptest.Must(t, unix.Close(fd))
	}
}

func TestFreshLeavesTheRestToTheKernel(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	for name, sockaddr := range map[string][]byte{
		"nothing":     nil,
		"port 0":      rawSockaddr(netip.AddrPortFrom(at.Addr(), 0)),
		"a unix path": {unix.AF_UNIX, 0, '/', 'a'},
	} {
		if fd, err := s.Fresh(first, ParseSockaddr(sockaddr)); fd >= 0 || err != nil {
			t.Errorf("%s: %d, %v", name, fd, err)
		}
	}
	serve(t, s, first, at)
	if fd, err := s.Fresh(first, at); fd >= 0 || !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second socket of one instance: %d, %v", fd, err)
	}
	if fd, err := s.Fresh(first, netip.MustParseAddrPort("192.0.2.1:9")); fd >= 0 || !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address of another machine: %d, %v", fd, err)
	}
}

func TestDialReachesOneInstance(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		s, at := newSteering(t), reservePort(t, host)
		one, two := serve(t, s, first, at), serve(t, s, second, at)
		for m, want := range map[InstanceKey]*appSocket{first: one, second: two} {
			conn, err := s.Dial(context.Background(), m, at.String())
			apptest.Must(t, err)
			a, fd := accepted(want)
			if a == nil {
				t.Errorf("%s: the connection for generation %d went elsewhere", host, m.Generation)
			}
			unix.Close(fd)
			conn.Close()
		}
		if connected(t, at, 0, one, two) != one {
			t.Error("an ordinary connection did not come to the selected generation")
		}
	}
}

func TestDialTellsThatNobodyListens(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	if conn, err := s.Dial(context.Background(), first, at.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("it gives %v, %v", conn, err)
	}
}
