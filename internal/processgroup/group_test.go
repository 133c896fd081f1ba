package processgroup

import (
	"os/exec"
	"syscall"
	"testing"
)

func TestRemains(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := Seen(cmd.Process.Pid)
	if !group.Remains() {
		t.Error("a process that runs does not remain")
	}
	started, ok := start(group.ID)
	if !ok || (Group{group.ID, started - 1}).Remains() {
		t.Error("one that was started later remains")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if group.Remains() {
		t.Error("one that has ended remains")
	}
}
