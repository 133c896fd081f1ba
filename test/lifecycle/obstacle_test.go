package lifecycle

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/terminal"
	"github.com/gracerun/grace/test/harness"
)

// TestStoppedByTheTerminal: nobody but grace is in its terminal's foreground, so that who asks there for a pass phrase
// is stopped.
func TestStoppedByTheTerminal(t *testing.T) {
	for call, signal := range map[string]string{"read line </dev/tty": "SIGTTIN", "stty tostop </dev/tty": "SIGTTOU"} {
		t.Run(signal, func(t *testing.T) {
			t.Parallel()
			_, terminal := terminal.Open(t)
			s := harness.StartWith(t, func(c *exec.Cmd) {
				c.Stdin = terminal
				c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			}, "--listen", "web=127.0.0.1:0", "--ready-timeout", "5s", "--", "/bin/sh", "-c", call+"; exec sleep 1000")
			e := s.AwaitMessage("first generation failed")
			if !strings.Contains(e.Why, " is stopped by "+signal) || strings.Contains(e.Why, "--dialect") {
				t.Errorf("the reason is %q", e.Why)
			}
		})
	}
}

// TestWrapperThatClosesTheSockets is named in the reason, and in the log before that.
func TestWrapperThatClosesTheSockets(t *testing.T) {
	for name, script := range map[string]string{
		"in its child":                       `(exec 3<&-; read line <"$0"; exit 1); exit 1`,
		"in itself":                          `exec 3<&-; read line <"$0"; exit 1`,
		"in its child, which ends before it": `(exec 3<&-; read line <"$0"); sleep 0.3; exit 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := filepath.Join(t.TempDir(), "gate")
			if err := syscall.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", "/bin/sh", "-c", script, gate)
			s.Await("what was seen", func(e harness.Entry) bool {
				return e.Message == "not ready yet" && strings.Contains(e.Why, "does not have the --listen sockets (web)")
			})
			if err := os.WriteFile(gate, []byte("go on\n"), 0); err != nil {
				t.Fatal(err)
			}
			e := s.AwaitMessage("first generation failed")
			if !strings.Contains(e.Why, "exit status 1; process ") || strings.Contains(e.Why, "--dialect") {
				t.Errorf("the reason is %q", e.Why)
			}
		})
	}
}

// TestServerThatTakesNoSocket: a newcomer gives --listen to one that binds its own port.
func TestServerThatTakesNoSocket(t *testing.T) {
	t.Parallel()
	own := freeport.Address(t)
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--capture", "off", "--", harness.AppBinary(), "-plain", "-addr", own)
	s.Await("what was seen", func(e harness.Entry) bool {
		return e.Message == "not ready yet" && strings.Contains(e.Why, "the app listens on "+own+" with a socket of its own (leave --listen out")
	})
}

// An app that binds by itself what grace holds for it, as with the port written in both places.
func TestAppBindsWhatGraceHolds(t *testing.T) {
	t.Parallel()
	address := freeport.Address(t)
	s := harness.Start(t, "--listen", address, "--", harness.PlainBinary(), address)
	s.Await("the reason", func(e harness.Entry) bool {
		return e.Message == "first generation failed" && strings.Contains(e.Why, "make the app take that socket") &&
			!strings.Contains(e.Why, "fd://") && !strings.Contains(e.Why, "exactly their own address")
	})
	s.Ends(1)
}

// As with :80 in --listen and listen 80 in nginx.conf.
func TestAppBindsWhatGraceHoldsInAnotherForm(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(freeport.Address(t))
	s := harness.Start(t, "--listen", ":"+port, "--", harness.PlainBinary(), "127.0.0.1:"+port)
	s.Await("the reason", func(e harness.Entry) bool {
		return e.Message == "first generation failed" && strings.Contains(e.Why, "by --listen [::]:"+port+": nginx and php-fpm take only a socket of exactly their own address")
	})
	s.Ends(1)
}
