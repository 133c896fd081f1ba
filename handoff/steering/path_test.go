package steering

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

func newPathSteering(t *testing.T) (*Steering, string) {
	t.Helper()
	s, at := newSteering(t), filepath.Join(t.TempDir(), "socket")
	s.Declare(at)
	return s, at
}

// servePath plays the capture of an app that removes a stale path, binds and listens.
func servePath(t *testing.T, s *Steering, m InstanceKey, at string) *appSocket {
	t.Helper()
	a := bindPath(t, s, m, at)
	apptest.Must(t, s.Listen(m, a.duplicate(), 64))
	return a
}

func bindPath(t *testing.T, s *Steering, m InstanceKey, at string) *appSocket {
	t.Helper()
	if !s.Keeps(at) {
		_ = unix.Unlink(at)
	}
	a := newAppSocket(t, unix.AF_UNIX)
	bound, err := s.BindPath(m, a.fd, at, 0o27)
	apptest.Must(t, err)
	if !bound {
		apptest.Must(t, unix.Bind(a.fd, &unix.SockaddrUnix{Name: at}))
	}
	return a
}

func checkPath(t *testing.T, at string, want *appSocket) {
	t.Helper()
	conn, err := net.Dial("unix", at)
	apptest.Must(t, err)
	defer conn.Close()
	fd := want.accept()
	if fd < 0 {
		t.Fatal("another socket has the path")
	}
	unix.Close(fd)
}

func filesBeside(t *testing.T, at string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(at))
	apptest.Must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestPathsCutOverAndBack(t *testing.T) {
	s, at := newPathSteering(t)
	first := servePath(t, s, InstanceKey{1, 0}, at)
	checkPath(t, at, first)
	second, third := servePath(t, s, InstanceKey{2, 0}, at), servePath(t, s, InstanceKey{3, 0}, at)
	checkPath(t, at, first)
	for _, step := range []struct {
		generation int
		want       *appSocket
	}{{2, second}, {1, first}, {3, third}, {2, second}} {
		kept, err := s.Steer(Split{Generation: step.generation})
		if len(kept) > 0 || err != nil {
			t.Fatal(kept, err)
		}
		checkPath(t, at, step.want)
	}
	if kept, err := s.Steer(Split{Generation: 4}); !slices.Equal(kept, []string{at}) || err != nil {
		t.Error(kept, err)
	}
	checkPath(t, at, second)
	if got := s.Places(3); !slices.Equal(got, []string{at}) {
		t.Error(got)
	}
	if got := s.Sockets(3); len(got) != 1 || got[0].At() != at || got[0].Inode != third.inode {
		t.Error(got)
	}
	apptest.Must(t, s.Retire(InstanceKey{1, 0}))
	apptest.Must(t, s.Retire(InstanceKey{3, 0}))
	if files := filesBeside(t, at); files != "socket" {
		t.Errorf("left: %s", files)
	}
	apptest.Must(t, s.Retire(InstanceKey{2, 0}))
	if files := filesBeside(t, at); files != "" {
		t.Errorf("left: %s", files)
	}
	checkPath(t, at, servePath(t, s, InstanceKey{4, 0}, at))
}

func TestPathsThatAreNotSteered(t *testing.T) {
	s, at := newPathSteering(t)
	for _, test := range []struct {
		name string
		path string
		kind int
	}{
		{"another path", at + "x", unix.SOCK_STREAM},
		{"another folder", filepath.Join(t.TempDir(), "socket"), unix.SOCK_STREAM},
		{"datagrams", at, unix.SOCK_DGRAM},
	} {
		fd, err := unix.Socket(unix.AF_UNIX, test.kind|unix.SOCK_CLOEXEC, 0)
		apptest.Must(t, err)
		defer unix.Close(fd)
		if bound, err := s.BindPath(InstanceKey{1, 0}, fd, test.path, 0); bound || err != nil {
			t.Error(test.name, bound, err)
		}
		apptest.Must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: test.path}))
		apptest.Must(t, unix.Unlink(test.path))
		duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		apptest.Must(t, err)
		if err := s.Listen(InstanceKey{1, 0}, duplicate, 1); !errors.Is(err, ErrNotSteered) {
			t.Error(test.name, err)
		}
		if s.Keeps(test.path) {
			t.Error(test.name, "is kept")
		}
	}
}

// What a bind finds that goes on is the app's: a file that nobody serves, as without grace.
func TestPathsWithoutASocketAreTheApps(t *testing.T) {
	s, at := newPathSteering(t)
	apptest.Must(t, os.WriteFile(at, nil, 0o600))
	a := newAppSocket(t, unix.AF_UNIX)
	if bound, err := s.BindPath(InstanceKey{1, 0}, a.fd, at, 0); bound || err != nil || s.Keeps(at) {
		t.Fatal(bound, err)
	}
	if err := s.Listen(InstanceKey{1, 0}, a.duplicate(), 1); !errors.Is(err, ErrNotSteered) {
		t.Error("a socket without an address listens:", err)
	}
	checkPath(t, at, servePath(t, s, InstanceKey{1, 0}, at))
}

func TestPathsByAnotherName(t *testing.T) {
	dir := t.TempDir()
	apptest.Must(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	apptest.Must(t, os.Symlink("run", filepath.Join(dir, "var")))
	s := newSteering(t)
	s.Declare(dir + "/run/socket")
	for generation := 1; generation <= 3; generation++ {
		a := servePath(t, s, InstanceKey{generation, 0}, dir+"/var/../var/socket")
		_, err := s.Steer(Split{Generation: generation})
		apptest.Must(t, err)
		checkPath(t, dir+"/run/socket", a)
	}
	for _, name := range []string{"/run/socket", "/var/socket", "/var/.socket.2", "/run/.socket.3"} {
		if !s.Keeps(dir + name) {
			t.Errorf("%s is not kept", name)
		}
	}
	apptest.Must(t, s.Retire(InstanceKey{1, 0})) // its file was the last to be called so
	if !s.Keeps(dir+"/run/.socket.3") || s.Keeps(dir+"/run/.socket.4") || s.Keeps(dir+"/socket") {
		t.Error("the wrong names are kept")
	}
}

// Who has a path is told, as who has an address. A server that has removed the file before it binds takes the path over.
func TestAPathInUseNamesItsHolder(t *testing.T) {
	s, at := newPathSteering(t)
	holder, err := net.ListenUnix("unix", &net.UnixAddr{Name: at})
	apptest.Must(t, err)
	holder.SetUnlinkOnClose(false)
	a, m := newAppSocket(t, unix.AF_UNIX), InstanceKey{1, 0}
	bound, err := s.BindPath(m, a.fd, at, 0)
	inUse := (*socket.InUseError)(nil)
	if bound || !errors.As(err, &inUse) || len(inUse.Holders) == 0 || inUse.Holders[0].PID != os.Getpid() {
		t.Errorf("%v, %v", bound, err)
	}
	goesOn := func(what string) {
		if bound, err := s.BindPath(m, a.fd, at, 0); bound || err != nil {
			t.Errorf("%s: %v, %v", what, bound, err)
		}
	}
	apptest.Must(t, os.Rename(at, at+".moved"))
	goesOn("the file is gone")
	apptest.Must(t, errors.Join(os.Rename(at+".moved", at), holder.Close()))
	goesOn("nobody has it") // and the kernel refuses it for the file
}

func TestASecondSocketForAPathIsRefused(t *testing.T) {
	alive := true
	s, err := NewSteering(func(InstanceKey, uint64) bool { return alive })
	apptest.Must(t, err)
	defer s.Close()
	at, m := filepath.Join(t.TempDir(), "socket"), InstanceKey{1, 0}
	s.Declare(at)
	first, second := servePath(t, s, m, at), newAppSocket(t, unix.AF_UNIX)
	if bound, err := s.BindPath(m, second.fd, at, 0); bound || !errors.Is(err, unix.EADDRINUSE) {
		t.Error(bound, err)
	}
	alive = false
	first.close()
	checkPath(t, at, servePath(t, s, m, at))
	if files := filesBeside(t, at); files != "socket" {
		t.Errorf("left: %s", files)
	}
}

// An app that sets the mode after bind does so at the path, where the one before is still.
func TestThePathKeepsTheModeThatTheAppHasSet(t *testing.T) {
	for _, test := range []struct {
		set  os.FileMode
		want os.FileMode
	}{{0, 0o750}, {0o666, 0o666}, {0o600, 0o600}} {
		t.Run(fmt.Sprintf("%o", test.set), func(t *testing.T) {
			s, at := newPathSteering(t)
			servePath(t, s, InstanceKey{1, 0}, at)
			apptest.Must(t, os.Chmod(at, 0o600))
			second := servePath(t, s, InstanceKey{2, 0}, at)
			if test.set != 0 {
				awaitTick(t, at)
				apptest.Must(t, os.Chmod(at, test.set))
			}
			_, err := s.Steer(Split{Generation: 2})
			apptest.Must(t, err)
			info, err := os.Lstat(at)
			apptest.Must(t, err)
			if info.Mode().Perm() != test.want {
				t.Errorf("mode %o, want %o", info.Mode().Perm(), test.want)
			}
			checkPath(t, at, second)
		})
	}
}

// awaitTick waits until a change of the file is one of another time: the kernel's clock for that ticks.
func awaitTick(t *testing.T, at string) {
	t.Helper()
	changed := func(at string) unix.Timespec {
		var stat unix.Stat_t
		apptest.Must(t, unix.Lstat(at, &stat))
		return stat.Ctim
	}
	probe := filepath.Join(t.TempDir(), "probe")
	apptest.Eventually(t, "the clock ticks", func() bool {
		apptest.Must(t, os.WriteFile(probe, nil, 0o600))
		apptest.Must(t, os.Chmod(probe, 0o600))
		return changed(probe) != changed(at)
	})
}

func TestTheSuccessorTakesWhatWaitsAtAPath(t *testing.T) {
	s, at := newPathSteering(t)
	m := InstanceKey{1, 0}
	servePath(t, s, m, at).close()
	apptest.Must(t, s.Vacate(m))
	conn, err := net.Dial("unix", at)
	apptest.Must(t, err)
	defer conn.Close()
	a := newAppSocket(t, unix.AF_UNIX)
	if fd, err := s.TakePath(InstanceKey{1, 1}, a.fd, at); fd >= 0 || err != nil {
		t.Error("another member has got it:", fd, err)
	}
	fd, err := s.TakePath(m, a.fd, at)
	apptest.Must(t, err)
	successor := &appSocket{t: t, fd: fd}
	defer successor.close()
	apptest.Must(t, unix.SetNonblock(fd, true))
	apptest.Must(t, s.Listen(m, successor.duplicate(), 9))
	if queued, err := s.Queued(1); queued != 1 || err != nil {
		t.Error(queued, err)
	}
	if fd := successor.accept(); fd < 0 {
		t.Error("what waited is lost")
	} else {
		unix.Close(fd)
	}
}

// The socket of one that was started again, and cannot have the other's, has the path at once.
func TestTheSuccessorHasThePath(t *testing.T) {
	s, at := newPathSteering(t)
	m := InstanceKey{1, 0}
	servePath(t, s, m, at).close()
	apptest.Must(t, s.Vacate(m))
	successor := servePath(t, s, m, at)
	checkPath(t, at, successor)
	if files := filesBeside(t, at); files != "socket" {
		t.Errorf("left: %s", files)
	}
}

func TestConnectionsAtPathsAreCounted(t *testing.T) {
	s, at := newPathSteering(t)
	first := servePath(t, s, InstanceKey{1, 0}, at)
	conn, err := net.Dial("unix", at)
	apptest.Must(t, err)
	defer conn.Close()
	servePath(t, s, InstanceKey{2, 0}, at)
	_, err = s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	checkQueued(t, s, 1, 2) // the second is one that may be on its way
	fd := first.accept()
	self := []int{os.Getpid()}
	for generation, want := range map[int]int{1: 1, 2: 0, 3: 0} {
		if n, err := s.Accepted(generation, self); n != want || err != nil {
			t.Errorf("generation %d: %d, %v", generation, n, err)
		}
	}
	unix.Close(fd)
	apptest.Eventually(t, "nothing comes any more", func() bool {
		queued, err := s.Queued(1)
		apptest.Must(t, err)
		return queued == 0
	})
	if n, err := s.Accepted(1, self); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestPathsLeadToNobodyElse(t *testing.T) {
	s, at := newPathSteering(t)
	servePath(t, s, InstanceKey{1, 0}, at)
	servePath(t, s, InstanceKey{2, 0}, at)
	apptest.Must(t, os.Remove(at))
	apptest.Must(t, os.WriteFile(at, nil, 0o600))
	if _, err := s.Steer(Split{Generation: 2}); err == nil || !strings.Contains(err.Error(), "another file has taken its place") {
		t.Error(err)
	}
	apptest.Must(t, os.Remove(at))
	third := servePath(t, s, InstanceKey{3, 0}, at)
	_, err := s.Steer(Split{Generation: 3})
	apptest.Must(t, err)
	checkPath(t, at, third)
}

func TestWhatNeverListensLeavesNothing(t *testing.T) {
	before := apptest.Descriptors(t)
	s, err := NewSteering(nil)
	apptest.Must(t, err)
	at := filepath.Join(t.TempDir(), "socket")
	s.Declare(at)
	servePath(t, s, InstanceKey{1, 0}, at).close()
	a := newAppSocket(t, unix.AF_UNIX)
	bound, err := s.BindPath(InstanceKey{2, 0}, a.fd, at, 0)
	if !bound || err != nil {
		t.Fatal(bound, err)
	}
	a.close()
	apptest.Must(t, s.Retire(InstanceKey{2, 0}))
	if files := filesBeside(t, at); files != "socket" {
		t.Errorf("left: %s", files)
	}
	apptest.Must(t, s.Close())
	if after := apptest.Descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

func TestPathsGoOnInASuccessor(t *testing.T) {
	s, at := newPathSteering(t)
	first, second := servePath(t, s, InstanceKey{1, 0}, at), servePath(t, s, InstanceKey{2, 0}, at)
	_, err := s.Steer(Split{Generation: 2})
	apptest.Must(t, err)
	third := newAppSocket(t, unix.AF_UNIX)
	bound, err := s.BindPath(InstanceKey{3, 0}, third.fd, at, 0o22)
	if !bound || err != nil {
		t.Fatal(bound, err)
	}
	state, err := s.Suspend()
	apptest.Must(t, err)
	defer s.Resume()
	text, err := json.Marshal(state)
	apptest.Must(t, err)
	var came SteeringState
	apptest.Must(t, json.Unmarshal(text, &came))
	fds := socket.Descriptors{}
	for _, fd := range state.FDs() {
		fds[fd], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		apptest.Must(t, err)
	}
	next, err := TakeOverSteering(came, fds, nil)
	apptest.Must(t, err)
	defer next.Close()
	if len(fds) > 0 {
		t.Errorf("nobody has taken over %v", fds)
	}
	checkPath(t, at, second)
	apptest.Must(t, next.Listen(InstanceKey{3, 0}, third.duplicate(), 9))
	for generation, want := range map[int]*appSocket{1: first, 2: second, 3: third} {
		_, err := next.Steer(Split{Generation: generation})
		apptest.Must(t, err)
		checkPath(t, at, want)
	}
	for generation := range 4 {
		apptest.Must(t, next.Retire(InstanceKey{generation, 0}))
	}
	if files := filesBeside(t, at); files != "" {
		t.Errorf("left: %s", files)
	}
}
