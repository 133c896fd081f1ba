package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/internal/requirement"
)

// CheckGone looks for what lives of a process group. The dead wait for a moment until grace, or init after it, reaps them.
func CheckGone(t *testing.T, pgid int) {
	t.Helper()
	if syscall.Kill(-pgid, 0) == syscall.ESRCH {
		return
	}
	if members, err := childproc.Group(pgid); err != nil || len(members) > 0 {
		t.Errorf("of process group %d there are still %v, %v", pgid, members, err)
	}
}

// Kill refuses 0, which kill(2) takes for the test's own process group.
func Kill(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		t.Fatal("there is no process to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("cannot kill process %d: %v", pid, err)
	}
}

// CheckEnded wants a process to have ended. Its zombie may be there for a moment: grace tells of an end first and reaps then.
func CheckEnded(t *testing.T, pid int) {
	t.Helper()
	if childproc.Living(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

var sleeps atomic.Int64

// NewSleep is a command that no other process runs.
func NewSleep() string { return fmt.Sprintf("sleep 10%07d%03d", os.Getpid(), sleeps.Add(1)) }

// PIDsOf gives the processes that run a command, without the dead.
func PIDsOf(t *testing.T, command string) (pids []int) {
	t.Helper()
	all, err := childproc.Everybody()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range all {
		if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil && string(text) == strings.ReplaceAll(command, " ", "\x00")+"\x00" {
			pids = append(pids, pid)
		}
	}
	return pids
}

func AsNobody(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	c.Dir = "/"
}

const Nobody = 65534

func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		requirement.Check(t, "root", os.ErrPermission)
	}
}

func Need(t *testing.T, program string) {
	t.Helper()
	_, err := exec.LookPath(program)
	requirement.Check(t, program, err)
}

// Until asks again until it is so.
func Until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}
