package host

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/gracerun/grace/childproc"
	"golang.org/x/sys/unix"
)

// The number of a root that has ended may be another's.
func TestRootThatHasEndedHasNoDescendants(t *testing.T) {
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	roots := []root{{pid: self, pidfd: ended}}
	a := &Host{Reaper: reaper}
	if pids, err := a.below(roots); err != nil || len(pids) > 0 {
		t.Errorf("%v, %v", pids, err)
	}
	roots = withRoots(roots, []int{self})
	defer closeRoots(roots)
	if pids, err := a.below(roots); err != nil || !slices.Contains(pids, self) {
		t.Errorf("%v, %v: process %d is missing", pids, err, self)
	}
	if again := withRoots(roots, []int{self}); len(again) != len(roots) {
		t.Error("a root that lives was added twice")
	}
}
