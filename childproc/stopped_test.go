package childproc

import (
	"syscall"
	"testing"
)

func TestStopped(t *testing.T) {
	p, err := newReaper(t).Start(shell("kill -TTIN $$"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is stopped", func() bool { pid, _ := Stopped([]int{1 << 30, p.PID}); return pid == p.PID })
	if _, by := Stopped([]int{p.PID}); by != syscall.SIGTTIN && by != 0 {
		t.Errorf("it was stopped by %s", by)
	}
	if !Living(p.PID) {
		t.Error("it is stopped, and not living")
	}
	if name := Called(p.PID); name != "sh" {
		t.Errorf("it is called %q", name)
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil || Living(p.PID) {
		t.Errorf("it has ended, and is living, or %v", err)
	}
	finish(t, p)
	if pid, _ := Stopped([]int{p.PID}); pid != 0 || Called(p.PID) != "?" {
		t.Error("it is gone, and still stopped")
	}
}
