package handoff

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// reusing is a socket with SO_REUSEADDR, as nearly all servers have: one that was shut down is in its way no more.
func reusing(t *testing.T) *appSocket {
	t.Helper()
	a := newAppSocket(t, unix.AF_INET)
	must(t, unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	return a
}

// capture plays the capture of an app's bind and listen as the supervisor does it: what has been left is taken.
func (a *appSocket) capture(s *Steering, m Member, at netip.AddrPort) {
	a.t.Helper()
	left, err := s.Take(m, a.fd, rawSockaddr(at))
	must(a.t, err)
	if left >= 0 {
		must(a.t, unix.Dup3(left, a.fd, unix.O_CLOEXEC))
		must(a.t, unix.Close(left))
		a.inode, _, err = identity(a.fd)
		must(a.t, err)
	} else if decision, err := a.bind(s, m, at); decision != Steered || err != nil {
		a.t.Fatalf("bind of %v: %v, %v", m, decision, err)
	}
	must(a.t, s.Listen(m, a.duplicate(), 64))
}

// An app may shut its listener down and open another at the same address, whether or not it closes the first before.
func TestAppBindsAgainAfterShutdown(t *testing.T) {
	for name, closes := range map[string]bool{"closed": true, "still open": false} {
		t.Run(name, func(t *testing.T) {
			s, at, m := newSteering(t), freePort(t, "127.0.0.1"), Member{1, 0}
			before, next := reusing(t), reusing(t)
			before.capture(s, m, at)
			must(t, unix.Shutdown(before.fd, unix.SHUT_RDWR))
			if closes {
				s.live = func(_ Member, inode uint64) bool { return inode != before.inode }
				before.close()
			}
			next.capture(s, m, at)
			if connected(t, at, 0, next) == nil {
				t.Error("a connection strayed")
			}
		})
	}
}
