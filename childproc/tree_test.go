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
)

func init() {
	roles["lineage"] = lineage
	roles["zombie"] = func() {
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), roleVariable+"=nothing")
		fmt.Println(child.Start(), child.Process.Pid)
		io.Copy(io.Discard, os.Stdin)
	}
	roles["nothing"] = func() {}
}

// lineage is a process with DEPTH generations below it, who say their pids, and who end when their stdin does.
func lineage() {
	fmt.Println(os.Getpid())
	depth, _ := strconv.Atoi(os.Getenv("DEPTH"))
	if depth > 0 {
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), "DEPTH="+strconv.Itoa(depth-1))
		child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			fmt.Println(err)
		}
	}
	io.Copy(io.Discard, os.Stdin)
}

func startLineage(t *testing.T, n int) []int {
	t.Helper()
	p := startProgram(t, roleCommand("lineage", "DEPTH="+strconv.Itoa(n-1)))
	pids := make([]int, n)
	for i := range pids {
		p.scan(t, &pids[i])
	}
	return pids
}

func TestTree(t *testing.T) {
	pids := startLineage(t, 4)
	for i, pid := range pids {
		if got, err := Tree(pid); err != nil || !slices.Equal(got, pids[i:]) {
			t.Errorf("Tree(%d) = %v, %v, want %v", pid, got, err, pids[i:])
		}
	}
}

func TestTreeByScan(t *testing.T) {
	pids := startLineage(t, 4)
	children, err := scanChildren()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := treeOf(pids[0], children); err != nil || !slices.Equal(got, pids) {
		t.Errorf("%v, %v, want %v", got, err, pids)
	}
}

func TestTreeWithoutZombies(t *testing.T) {
	p := startProgram(t, roleCommand("zombie"))
	var failed string
	var zombie int
	p.scan(t, &failed, &zombie)
	eventually(t, "the child is a zombie", func() bool {
		stat, err := readStat(zombie)
		return err == nil && !stat.living()
	})
	if got, err := Tree(p.pid()); err != nil || !slices.Equal(got, []int{p.pid()}) {
		t.Errorf("%v, %v", got, err)
	}
	children, err := scanChildren()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := children(p.pid()); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTreeOfNobody(t *testing.T) {
	if _, err := Tree(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestDescends(t *testing.T) {
	pids := startLineage(t, 4)
	other := startLineage(t, 1)[0]
	for _, c := range []struct {
		pid, ancestor int
		want          bool
	}{
		{pids[3], pids[0], true},
		{pids[1], pids[0], true},
		{pids[2], pids[2], true},
		{pids[0], pids[1], false},
		{pids[3], other, false},
		{pids[3], os.Getpid(), true},
		{1, pids[0], false},
		{os.Getpid(), pids[0], false},
	} {
		if got, err := Descends(c.pid, c.ancestor); err != nil || got != c.want {
			t.Errorf("Descends(%d, %d) = %v, %v", c.pid, c.ancestor, got, err)
		}
	}
}

func TestDescendsAfterTheParentsEnd(t *testing.T) {
	pids := startLineage(t, 3)
	syscall.Kill(pids[1], syscall.SIGKILL)
	eventually(t, "the grandchild has another parent", func() bool {
		stat, err := readStat(pids[2])
		return err == nil && stat.parent != pids[1]
	})
	if got, err := Descends(pids[2], pids[0]); got || err != nil {
		t.Errorf("an orphan still descends: %v, %v", got, err)
	}
}

func TestDescendsOfNobody(t *testing.T) {
	if _, err := Descends(1<<30, os.Getpid()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A process whose main thread has ended looks like a zombie, and lives.
func TestMainThreadEnded(t *testing.T) {
	p := startProgram(t, roleCommand("waiter", "WAITER=headless"))
	var inode uint64
	p.scan(t, &inode)
	pid := p.pid()
	eventually(t, "the main thread is a zombie", func() bool {
		stat, err := readStat(pid)
		return err == nil && stat.state == 'Z'
	})
	stat, err := readStat(pid)
	if err != nil || !stat.living() {
		t.Errorf("%+v, %v", stat, err)
	}
	members, err := Group(syscall.Getpgrp())
	if err != nil || !slices.Contains(members, pid) {
		t.Errorf("%d is not in %v, %v", pid, members, err)
	}
}
