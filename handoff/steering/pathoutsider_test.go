package steering

import (
	"net"
	"os"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

var outside = InstanceKey{-1, 0}

// serveOutside plays a server that has bound the path before.
func serveOutside(t *testing.T, at string, mode os.FileMode) *appSocket {
	t.Helper()
	a := newAppSocket(t, unix.AF_UNIX)
	apptest.Must(t, unix.Bind(a.fd, &unix.SockaddrUnix{Name: at}))
	apptest.Must(t, unix.Listen(a.fd, 64))
	apptest.Must(t, os.Chmod(at, mode))
	return a
}

func includeAt(t *testing.T, at string) (*Steering, *appSocket) {
	t.Helper()
	s, old := newSteering(t), serveOutside(t, at, 0o606)
	s.Declare(at)
	apptest.Must(t, s.Include([]Outsider{{InstanceKey: outside, FD: old.duplicate(), Path: at}}))
	return s, old
}

func cutOver(t *testing.T, s *Steering, generation int) {
	t.Helper()
	if kept, err := s.Steer(Split{Generation: generation}); len(kept) > 0 || err != nil {
		t.Fatal(kept, err)
	}
}

func checkMode(t *testing.T, at string, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(at)
	apptest.Must(t, err)
	if info.Mode().Perm() != mode {
		t.Errorf("the path has mode %o", info.Mode().Perm())
	}
}

func TestIncludedPathsCutOverAndBack(t *testing.T) {
	at := t.TempDir() + "/socket"
	s, old := includeAt(t, at)
	if !s.Has(old.inode) || !s.Keeps(at) {
		t.Error("the socket is no member")
	}
	checkPath(t, at, old)
	new := servePath(t, s, InstanceKey{1, 0}, at)
	checkPath(t, at, old)
	cutOver(t, s, 1)
	checkPath(t, at, new)
	checkMode(t, at, 0o606)
	cutOver(t, s, -1)
	checkPath(t, at, old)
	cutOver(t, s, 1)
	if s.Unkept() == nil {
		if err := unix.Unlink(at); err != unix.EBUSY {
			t.Errorf("the server can remove the path: %v", err)
		}
	}
	apptest.Must(t, s.Retire(outside))
	checkPath(t, at, new)
	if files := filesBeside(t, at); files != "socket" || socket.IsKept(at) {
		t.Errorf("left: %s", files)
	}
	apptest.Must(t, s.TurnAway())
}

// A process that was killed before it had saved any state has kept the path.
func TestKeptPathsCutOver(t *testing.T) {
	at := t.TempDir() + "/socket"
	s, old := newSteering(t), serveOutside(t, at, 0o606)
	requirement.Check(t, "mount", socket.KeepPath(at, false).Why)
	s.Declare(at)
	apptest.Must(t, s.Include([]Outsider{{InstanceKey: outside, FD: old.duplicate(), Path: at}}))
	new := servePath(t, s, InstanceKey{1, 0}, at)
	cutOver(t, s, 1)
	checkPath(t, at, new)
	apptest.Must(t, s.Retire(outside))
	if files := filesBeside(t, at); files != "socket" || socket.IsKept(at) {
		t.Errorf("left: %s", files)
	}
	apptest.Must(t, s.TurnAway())
}

func TestPathsAreGivenBack(t *testing.T) {
	for _, selected := range []int{-1, 1} {
		at := t.TempDir() + "/socket"
		s, old := includeAt(t, at)
		servePath(t, s, InstanceKey{1, 0}, at)
		cutOver(t, s, selected)
		apptest.Must(t, s.GiveBack(-1))
		checkPath(t, at, old)
		if files := filesBeside(t, at); files != "socket" || socket.IsKept(at) {
			t.Errorf("left: %s", files)
		}
	}
}

// A held path is exchanged as a captured one is.
func TestOwnSocketsAtAPath(t *testing.T) {
	at := t.TempDir() + "/socket"
	s, old := includeAt(t, at)
	a, err := socket.ParseAddress("web=unix://" + at)
	apptest.Must(t, err)
	a.Steer = true
	l, err := socket.ReservePath(a)
	apptest.Must(t, err)
	defer l.Close()
	first := own(t, s, InstanceKey{1, 0}, l)
	checkPath(t, at, old)
	cutOver(t, s, 1)
	checkPath(t, at, first)
	apptest.Must(t, s.Retire(outside))
	second := own(t, s, InstanceKey{2, 0}, l)
	cutOver(t, s, 2)
	checkPath(t, at, second)
	checkMode(t, at, 0o606)
	apptest.Must(t, s.Vacate(InstanceKey{2, 0}))
	conn, err := net.Dial("unix", at)
	apptest.Must(t, err)
	defer conn.Close()
	again := own(t, s, InstanceKey{2, 0}, l)
	if fd := again.accept(); fd < 0 || again.inode != second.inode {
		t.Error("who waits in the queue of an instance that has ended is lost")
	} else {
		unix.Close(fd)
	}
	apptest.Must(t, s.TurnAway())
}

// The state may be older than the last exchange.
func TestExchangedPathsAreLocated(t *testing.T) {
	at := t.TempDir() + "/socket"
	s, old := includeAt(t, at)
	new := servePath(t, s, InstanceKey{1, 0}, at)
	shown := map[uint64]int{}
	state := read(t, s, func(inode uint64, fd int) { shown[inode] = fd })
	cutOver(t, s, 1)
	found, fds := map[uint64]int{}, socket.Descriptors{}
	for _, a := range []*appSocket{old, new} {
		found[a.inode] = a.duplicate()
	}
	state.Keep(found, fds)
	next, err := TakeOverSteering(state, fds, nil)
	apptest.Must(t, err)
	defer next.Close()
	cutOver(t, next, -1)
	checkPath(t, at, old)
	cutOver(t, next, 1)
	checkPath(t, at, new)
	apptest.Must(t, next.Retire(outside))
	if files := filesBeside(t, at); files != "socket" || socket.IsKept(at) {
		t.Errorf("left: %s", files)
	}
}
