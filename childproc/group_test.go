package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func init() {
	roles["relay"] = relay
}

// relay is a process that starts its successor when its stdin ends, and ends.
func relay() {
	io.Copy(io.Discard, os.Stdin)
	left := must(strconv.Atoi(os.Getenv("LEFT")))
	if left == 0 {
		return
	}
	next := exec.Command("/proc/self/exe")
	next.Env = append(os.Environ(), "LEFT="+strconv.Itoa(left-1))
	next.Stdout, next.Stderr = os.Stdout, os.Stderr
	if err := next.Start(); err != nil {
		panic(err)
	}
}

func startGroup(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := startProgram(t, cmd)
	t.Cleanup(func() { syscall.Kill(-p.pid(), syscall.SIGKILL) })
	return p
}

func killed(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has ended", func() bool {
		stat, err := readStat(pid)
		return err != nil || !stat.living()
	})
}

// restOf takes a program for a process whose group is to be waited for.
func restOf(t *testing.T, p *program) *Process {
	t.Helper()
	leader := must(newReaper(t).Adopt(p.pid()))
	t.Cleanup(leader.Release)
	return leader
}

func TestWaitRest(t *testing.T) {
	p := startGroup(t, roleCommand("lineage", "DEPTH=2"))
	pids := make([]int, 3)
	for i := range pids {
		p.scan(t, &pids[i])
	}
	members := must(Group(p.pid()))
	slices.Sort(members)
	if !slices.Equal(members, slices.Sorted(slices.Values(pids))) {
		t.Fatalf("the group is %v and not %v", members, pids)
	}
	leader, ended := restOf(t, p), make(chan error, 1)
	go func() { ended <- leader.WaitRest(nil) }()
	killed(t, pids[0])
	killed(t, pids[2])
	if members := must(Group(p.pid())); !slices.Equal(members, pids[1:2]) {
		t.Errorf("the group is %v and not %v", members, pids[1:2])
	}
	select {
	case err := <-ended:
		t.Fatalf("%d is alive, but: %v", pids[1], err)
	default:
	}
	killed(t, pids[1])
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Error("it does not end")
	}
}

func TestWaitRestOfSuccessors(t *testing.T) {
	p := startGroup(t, roleCommand("relay", "LEFT=20"))
	leader := restOf(t, p)
	p.in.Close()
	if err := errors.Join(leader.waitEnd(), leader.WaitRest(nil)); err != nil {
		t.Error(err)
	}
	if left := must(Group(p.pid())); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	if _, err := p.out.ReadByte(); err != io.EOF {
		t.Errorf("somebody still has the pipe: %v", err)
	}
}

func TestWaitRestStopped(t *testing.T) {
	p := startGroup(t, roleCommand("lineage", "DEPTH=1"))
	p.scan(t, new(int))
	p.scan(t, new(int))
	leader := restOf(t, p)
	before := descriptors(t)
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- leader.WaitRest(stop) }()
	close(stop)
	if err := <-ended; !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if err := leader.WaitRest(stop); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	checkNoMoreDescriptors(t, before)
}

func TestWaitRestOfNobody(t *testing.T) {
	p := startGroup(t, roleCommand("nothing"))
	eventually(t, "the leader is a zombie", func() bool { return !must(readStat(p.pid())).living() })
	if err := restOf(t, p).WaitRest(nil); err != nil {
		t.Error(err)
	}
}

// checkNoMoreDescriptors allows for fewer: what earlier tests have dropped may be collected meanwhile.
func checkNoMoreDescriptors(t *testing.T, before int) {
	t.Helper()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
