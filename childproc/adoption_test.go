package childproc

import (
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProcessIsFoundAgainByItsBirth(t *testing.T) {
	p := must(newReaper(t).Start(shell("exec sleep 1000")))
	state := p.State()
	fd := must(state.Open())
	if fd < 0 {
		t.Fatal("it is not found")
	}
	unix.Close(fd)
	for what, change := range map[string]func(s *ProcessState){
		"began earlier": func(s *ProcessState) { s.Birth.Started-- },
		"other pidfd":   func(s *ProcessState) { s.Birth.Inode++ },
		"other number":  func(s *ProcessState) { s.PID = os.Getppid() },
		"nobody's":      func(s *ProcessState) { s.PID = 1 << 21 },
	} {
		other := state
		change(&other)
		if fd, err := other.Open(); fd != -1 || err != nil {
			t.Errorf("%s: %d, %v", what, fd, err)
		}
	}
	end(t, p)
	if fd, err := state.Open(); fd != -1 || err != nil {
		t.Errorf("ended: %d, %v", fd, err)
	}
}

func end(t *testing.T, p *Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := p.Reap(); err != nil {
		t.Fatal(err)
	}
}

// A process of which only the number is known has ended, and nobody who has the number by now is touched.
func TestProcessThatEndedUnseen(t *testing.T) {
	living := must(newReaper(t).Start(shell("exec sleep 1000")))
	p := must(newReaper(t).TakeOver(ProcessState{PID: living.PID, PIDFD: -1, Group: true}, nil))
	for _, err := range []error{p.Signal(syscall.SIGKILL), p.SignalGroup(syscall.SIGKILL)} {
		if err != nil {
			t.Error(err)
		}
	}
	if exit, err := p.Wait(); !exit.Unknown || err != nil {
		t.Errorf("%v, %v", exit, err)
	}
	if rest, err := p.Rest(); len(rest) > 0 || err != nil {
		t.Errorf("%v, %v", rest, err)
	}
	if err := p.Reap(); err != nil {
		t.Error(err)
	}
	if !Living(living.PID) {
		t.Error("the process that has the number was ended")
	}
	end(t, living)
}

func TestSocketsAreDuplicatedByInode(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	file := must(l.(*net.TCPListener).File())
	defer file.Close()
	spec := shell("exec sleep 1000")
	spec.Files = []int{int(file.Fd())}
	p := must(newReaper(t).Start(spec))
	defer end(t, p)
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the app has the socket", func() bool { return must(Owner(stat.Ino, []int{p.PID})) == p.PID })
	found, err := DuplicateSockets([]uint64{stat.Ino, stat.Ino + 1<<40}, []int{1 << 21, p.PID})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	defer unix.Close(found[stat.Ino])
	var duplicate unix.Stat_t
	if err := unix.Fstat(found[stat.Ino], &duplicate); err != nil || duplicate.Ino != stat.Ino {
		t.Errorf("%d, %v", duplicate.Ino, err)
	}
	if flags, err := unix.FcntlInt(uintptr(found[stat.Ino]), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
		t.Errorf("it is not close-on-exec: %v", err)
	}
	if !Listens([]int{p.PID}) {
		t.Error("it is not seen to listen")
	}
}

func TestProcessesAreFoundByAVariableAndEnded(t *testing.T) {
	spec := shell("sleep 1000 & wait")
	spec.Env = append(os.Environ(), "GRACE_TEST_FIND=me")
	p := must(newReaper(t).Start(spec))
	var pids []int
	eventually(t, "the shell and its child are found", func() bool {
		pids = must(HaveVariable("GRACE_TEST_FIND", func(value string) bool { return value == "me" }))
		return len(pids) == 2
	})
	if !slices.Contains(pids, p.PID) {
		t.Errorf("%v, without %d", pids, p.PID)
	}
	if env, err := Environment(p.PID); err != nil || !slices.Contains(env, "GRACE_TEST_FIND=me") {
		t.Errorf("%s, %v", strings.Join(env, " "), err)
	}
	if err := End(pids); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); exit.Signal != syscall.SIGKILL || err != nil {
		t.Errorf("%v, %v", exit, err)
	}
	p.Reap()
	if others := must(HaveVariable("GRACE_TEST_FIND", func(value string) bool { return value == "me" })); len(others) > 0 {
		t.Errorf("%v are left", others)
	}
}
