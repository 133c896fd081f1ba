package operate

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/terminal"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

const stranger = 54321 // a user that nobody is

func asStranger(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
}

// The app's user does not reach the control socket, and were its directory open, it would not be heard.
func TestAppCannotControlGrace(t *testing.T) {
	harness.NeedRoot(t)
	dir, err := os.MkdirTemp("", "grace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+filepath.Join(dir, "run")) },
		"--name", "secured", "--user", "54321", "--listen", "web=127.0.0.1:0", "--ready-delay", "1ms", "--", harness.AppBinary())
	s.AwaitReady(1)
	path := filepath.Join(dir, "run", "secured.sock")
	for name, mode := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600, strings.TrimSuffix(path, ".sock") + ".lock": 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	asks := func() string {
		c := exec.Command(harness.GraceBinary(), "status", path)
		asStranger(c)
		out, err := c.CombinedOutput()
		if err == nil {
			t.Errorf("a stranger is told: %s", out)
		}
		return string(out)
	}
	asks()
	for name, mode := range map[string]os.FileMode{dir: 0o755, filepath.Dir(path): 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	if said := asks(); !strings.Contains(said, "user 54321 may not control a grace process of user 0") {
		t.Errorf("it says %q", said)
	}
	s.Stop()
}

// Capabilities that grace has from a unit do not go on to an app of another user, be grace root or not.
func TestAppOfAnotherUserHasNoCapability(t *testing.T) {
	harness.NeedRoot(t)
	program := harness.Write(t, t.TempDir(), "program", "#!/bin/sh\ngrep ^Cap /proc/self/status\nsleep 1000\n", 0o755)
	if err := os.Chmod(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]*syscall.SysProcAttr{
		"root": {},
		"another user": {
			Credential:  &syscall.Credential{Uid: stranger, Gid: stranger},
			AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_CHOWN, unix.CAP_NET_BIND_SERVICE, unix.CAP_KILL},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.StartWith(t, func(c *exec.Cmd) { c.SysProcAttr, c.Dir = who, "/" },
				"--capture", "off", "--ready", "delay", "--ready-delay", "1ms", "--stop-signal", "KILL", "--user", "12345", "--", program)
			for _, set := range []string{"Prm", "Eff", "Amb"} {
				s.AwaitLine("Cap" + set + ":\t0000000000000000")
			}
			s.Signal(syscall.SIGQUIT)
			s.Wait()
		})
	}
}

// Values of the environment are the app's: no log, status, metric, result or hook's report has them.
func TestEnvironmentIsToldToNobody(t *testing.T) {
	const secret = "correct-horse-battery"
	file := harness.Write(t, t.TempDir(), "env", "TOKEN="+secret+"\n", 0o600)
	name := fmt.Sprintf("%s-%d", strings.ToLower(t.Name()), os.Getpid())
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "PASSWORD="+secret) },
		"--name", name, "--log-level", "debug", "--env-file", file, "--metrics", "127.0.0.1:0", "--listen", "web=127.0.0.1:0", "--check", "test -n \"$TOKEN\"", "--", harness.AppBinary())
	if !strings.Contains(harness.Get(t, s.Address("web"), "/env"), "TOKEN="+secret) {
		t.Error("the app does not have it")
	}
	client, _ := harness.Client(t, name)
	var told []any
	for range 2 {
		result, reports := harness.Ask(t, client, control.Request{Do: control.Upgrade})
		told = append(told, result, reports)
		harness.Write(t, filepath.Dir(file), "env", "TOKEN="+secret+"\nbroken line with "+secret+"\n", 0o600) // the second one fails
	}
	_, metrics := scraperOf(s).get("/metrics")
	text, err := json.Marshal(append(told, harness.Status(t, client), metrics))
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if strings.Contains(string(text)+s.Output(), secret) {
		t.Errorf("it is told: %s\n%s", text, s.Output())
	}
	if !strings.Contains(string(text), `"outcome":"failed"`) {
		t.Errorf("no upgrade failed: %s", text)
	}
}

// Where grace puts sockets of its own in the place of the app's, they give the app no port that it may not bind.
func TestContainerGivesNoPortThatTheAppMayNotBind(t *testing.T) {
	alone := func(spec harness.Spec) {
		linux := spec.At("linux")
		linux["namespaces"] = append(linux["namespaces"].([]harness.Spec), harness.Spec{"type": "network"})
	}
	change := harness.Both(harness.Both(harness.AsDocker("CAP_SYS_PTRACE"), harness.Denies("pidfd_getfd")), alone)
	for port, status := range map[string]int{":81": 1, ":8081": 0} {
		c := harness.StartContainer(t, change, "--user", "12345", "--", "/app", "-addr", port)
		if status == 0 {
			c.AwaitReady(1)
			c.AwaitMessage("capturing with grace's own sockets")
			c.Do("kill", c.Name, "TERM")
		}
		c.Ends(status)
	}
}

// In root's session an app could push keystrokes into root's terminal (TIOCSTI), also by a descriptor of it that it has.
func TestAppOfAnotherUserHasNoTerminal(t *testing.T) {
	harness.NeedRoot(t)
	for said, user := range map[string][]string{"it has a terminal": nil, "it has none": {"--user", "54321"}} {
		_, terminal := terminal.Open(t)
		s := harness.StartWith(t, func(c *exec.Cmd) {
			c.Stdin = terminal
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		}, append(user, "--ready-delay", "1ms", "--", "/bin/sh", "-c", "if ( : </dev/tty ); then echo it has a terminal; else echo it has none; fi 2>/dev/null; exec sleep 1000")...)
		s.AwaitLine(said)
		s.Stop()
	}
}
