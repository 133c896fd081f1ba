package steering

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// reusing is a socket with SO_REUSEADDR, as nearly all servers have: one that was shut down is in its way no more.
func reusing(t *testing.T) *appSocket {
	t.Helper()
	a := newAppSocket(t, unix.AF_INET)
	apptest.Must(t, unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	return a
}

// replaceBy puts a socket in place of the app's, as the supervisor does it.
func (a *appSocket) replaceBy(left int) {
	a.t.Helper()
	apptest.Must(a.t, unix.Dup3(left, a.fd, unix.O_CLOEXEC))
	apptest.Must(a.t, errors.Join(unix.Close(left), unix.SetNonblock(a.fd, true)))
	var err error
	a.inode, _, err = identity(a.fd)
	apptest.Must(a.t, err)
}

// capture plays the capture of an app's bind and listen as the supervisor does it.
func (a *appSocket) capture(s *Steering, m InstanceKey, at netip.AddrPort) {
	a.t.Helper()
	a.captureBind(s, m, at)
	apptest.Must(a.t, s.Listen(m, a.duplicate(), 64))
}

// leaveVacant has the first instance listen there, and crash.
func leaveVacant(t *testing.T, s *Steering, at netip.AddrPort) {
	t.Helper()
	crashed := reusing(t)
	crashed.capture(s, first, at)
	crashed.close()
	apptest.Must(t, s.Vacate(first))
}

// captureBind takes what has been left.
func (a *appSocket) captureBind(s *Steering, m InstanceKey, at netip.AddrPort) {
	a.t.Helper()
	left, err := s.Take(m, a.fd, at)
	apptest.Must(a.t, err)
	if left >= 0 {
		a.replaceBy(left)
	} else if decision, err := a.bind(s, m, at); decision != Steered || err != nil {
		a.t.Fatalf("bind of %v: %v, %v", m, decision, err)
	}
}

// An app may shut its listener down and open another at the same address, whether or not it closes the first before.
func TestAppBindsAgainAfterShutdown(t *testing.T) {
	for name, closes := range map[string]bool{"closed": true, "still open": false} {
		t.Run(name, func(t *testing.T) {
			s, at, m := newSteering(t), apptest.FreePort(t, "127.0.0.1"), InstanceKey{1, 0}
			before, next := reusing(t), reusing(t)
			before.capture(s, m, at)
			apptest.Must(t, unix.Shutdown(before.fd, unix.SHUT_RDWR))
			if closes {
				before.closedFor(s)
			}
			next.capture(s, m, at)
			if connected(t, at, 0, next) == nil {
				t.Error("a connection strayed")
			}
		})
	}
}

// closedFor lets the Steering find that the app has closed its socket.
func (a *appSocket) closedFor(s *Steering) {
	a.t.Helper()
	closed := a.inode
	s.live = func(_ InstanceKey, inode uint64) bool { return inode != closed }
	a.close()
}

// A socket is bound once. The kernel refuses another bind of it, and what is known of the socket must stay: it is to listen
// where it is.
func TestAnotherBindOfASocketChangesNothing(t *testing.T) {
	s, at, left, m := newSteering(t), apptest.FreePort(t, "127.0.0.1"), apptest.FreePort(t, "127.0.0.1"), InstanceKey{2, 0}
	reusing(t).capture(s, InstanceKey{1, 0}, left)
	apptest.Must(t, s.Vacate(InstanceKey{1, 0}))
	a := reusing(t)
	if decision, err := a.bind(s, m, at); decision != Steered || err != nil {
		t.Fatalf("bind: %v, %v", decision, err)
	}
	for _, again := range []netip.AddrPort{at, apptest.FreePort(t, "127.0.0.1"), left} {
		if s.Left(m, a.fd, again) {
			t.Errorf("%s is left to it", again)
		}
		if fd, err := s.Take(m, a.fd, again); fd >= 0 || err != nil {
			t.Errorf("it takes %s: %d, %v", again, fd, err)
		}
		if decision, err := s.Bind(m, a.fd, again); decision != NotSteered || err != nil {
			t.Errorf("another bind to %s: %v, %v", again, decision, err)
		}
	}
	apptest.Must(t, s.Listen(m, a.duplicate(), 64))
	if connected(t, at, 0, a) == nil {
		t.Error("a connection strayed")
	}
}

func TestAnotherBindToAPathChangesNothing(t *testing.T) {
	s, at := newPathSteering(t)
	for generation := 1; generation <= 2; generation++ { // the second one is bound beside the path
		m, a := InstanceKey{generation, 0}, newAppSocket(t, unix.AF_UNIX)
		beside, err := s.BindPath(m, a.fd, at, 0)
		apptest.Must(t, err)
		if !beside {
			apptest.Must(t, unix.Bind(a.fd, &unix.SockaddrUnix{Name: at}))
		}
		if fd, err := s.TakePath(m, a.fd, at); fd >= 0 || err != nil {
			t.Errorf("generation %d takes %d, %v", generation, fd, err)
		}
		if beside, err := s.BindPath(m, a.fd, at, 0); beside || err != nil {
			t.Errorf("another bind of generation %d: %v, %v", generation, beside, err)
		}
		apptest.Must(t, s.Listen(m, a.duplicate(), 64))
		_, err = s.Steer(Split{Generation: generation})
		apptest.Must(t, err)
		checkPath(t, at, a)
	}
}

// An app that closes its listener at a path and binds again answers who came before, meanwhile and since.
func TestRebindAtAPathTakesUpWhoWaits(t *testing.T) {
	for name, generations := range map[string]int{"alone": 1, "while an old generation finishes": 2} {
		t.Run(name, func(t *testing.T) {
			s, at := newPathSteering(t)
			var a *appSocket
			for generation := range generations {
				a = capturePath(t, s, InstanceKey{generation + 1, 0}, at)
			}
			m := InstanceKey{generations, 0}
			_, err := s.Steer(Split{Generation: generations})
			apptest.Must(t, err)
			dial := func() {
				conn, err := net.Dial("unix", at)
				apptest.Must(t, err)
				t.Cleanup(func() { conn.Close() })
			}
			for range 3 {
				dial()
				a.closedFor(s)
				dial()
				a = capturePath(t, s, m, at)
				s.live = func(InstanceKey, uint64) bool { return true }
				dial()
				checkAnswered(t, 3, a)
			}
		})
	}
}

// A listener at a path that was shut down is dead in the kernel, whoever has it, and nobody's to take.
func TestAppBindsAPathAgainAfterShutdown(t *testing.T) {
	for name, leave := range map[string]func(*Steering, *appSocket){
		"closed":     func(s *Steering, a *appSocket) { a.closedFor(s) },
		"still open": func(*Steering, *appSocket) {},
		"crashed":    func(s *Steering, a *appSocket) { a.close(); apptest.Must(t, s.Vacate(InstanceKey{1, 0})) },
	} {
		t.Run(name, func(t *testing.T) {
			s, at := newPathSteering(t)
			before := capturePath(t, s, InstanceKey{1, 0}, at)
			apptest.Must(t, unix.Shutdown(before.fd, unix.SHUT_RDWR))
			leave(s, before)
			next := capturePath(t, s, InstanceKey{1, 0}, at)
			checkPath(t, at, next)
			if files := filesBeside(t, at); files != "socket" {
				t.Errorf("left: %s", files)
			}
		})
	}
}

func TestDatagramSocketsTakeNoListener(t *testing.T) {
	s, at := newPathSteering(t)
	capturePath(t, s, InstanceKey{1, 0}, at).close()
	apptest.Must(t, s.Vacate(InstanceKey{1, 0}))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	defer unix.Close(fd)
	if left, err := s.TakePath(InstanceKey{1, 0}, fd, at); left >= 0 || err != nil {
		t.Errorf("it has got %d, %v", left, err)
	}
}

// While a generation has no socket, one that has served before has the clients, and gives them back.
func TestClientsComeBackToTheGenerationThatBindsAgain(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old, current, candidate := reusing(t), reusing(t), reusing(t)
	for generation, a := range []*appSocket{old, current, candidate} {
		a.capture(s, InstanceKey{generation + 1, 0}, at)
	}
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	apptest.Must(t, unix.Shutdown(current.fd, unix.SHUT_RDWR))
	s.Sockets(2) // sees it
	apptest.Must(t, s.apply())
	if connected(t, at, 0, old) == nil {
		t.Error("meanwhile a connection strayed")
	}
	again := reusing(t)
	again.capture(s, InstanceKey{2, 0}, at)
	if connected(t, at, 0, again) == nil {
		t.Error("a connection does not come to the selected generation")
	}
}

// What its app has closed is no better than one that was shut down.
func TestClientsOfAClosedSocketGoToWhoServes(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		old, current := q.serve(first), q.serve(second)
		_, err := q.s.Steer(Split{Generation: 2})
		apptest.Must(t, err)
		current.close()
		apptest.Must(t, q.s.Forget(current.inode))
		q.waiting(t, 1)
		checkAnswered(t, 1, old)
		again := q.serve(second)
		q.waiting(t, 1)
		checkAnswered(t, 1, again)
	})
}
