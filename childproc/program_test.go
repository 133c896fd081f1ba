package childproc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/requirement"
)

// deadline is for what has to happen at all; nothing is asserted about time.
const deadline = 2 * time.Minute

// program is a process that a test started. It is killed and reaped at the test's end.
type program struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// roleCommand starts this test binary itself. The path is a link that every user can follow, whatever the mode of the
// folder that it is in. The race detector must not hold it for a second at its end.
func roleCommand(role string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")...)
	return cmd
}

func startProgram(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return p
}

func (p *program) pid() int { return p.Process.Pid }

// scan reads one line of what the program says.
func (p *program) scan(t *testing.T, into ...any) {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the program said %q and ended: %v", line, err)
	}
	if _, err := fmt.Sscan(line, into...); err != nil {
		t.Fatalf("the program said %q: %v", line, err)
	}
}

// eventually polls a condition; there is no event to wait for in /proc.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", deadline, what)
		}
	}
}

const nobody = 65534

func asNobody(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		requirement.Check(t, "root", os.ErrPermission)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}
