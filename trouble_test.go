//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
)

func TestBadInputIsToldAndEndsWithItsStatus(t *testing.T) {
	dir := t.TempDir()
	text := write(t, dir, "text", "hello\n", 0o644)
	quits := write(t, dir, "quits", "#!/bin/sh\nexit 9\n", 0o755)
	secret := write(t, dir, "env", "A=1\nsecret value\n", 0o600)
	for name, test := range map[string]struct {
		arguments []string
		status    int
		says      []string
	}{
		"no command":          {nil, 2, []string{"no command to run", "--"}},
		"unknown flag":        {[]string{"--lisen", "1", "--", "true"}, 2, []string{"unknown flag: --lisen"}},
		"address":             {[]string{"--listen", "ftp://x", "--", "true"}, 2, []string{"ftp", "accepted are"}},
		"port":                {[]string{"--listen", "127.0.0.1:99999", "--", "true"}, 2, []string{"99999"}},
		"dialect":             {[]string{"--dialect", "klingon", "--", "true"}, 2, []string{"klingon", "systemd"}},
		"ready":               {[]string{"--ready", "soon", "--", "true"}, 2, []string{"soon", "auto"}},
		"probe without a pid": {[]string{"--listen", "127.0.0.1:0", "--ready", "cmd:true", "--", "true"}, 2, []string{"{pid}", "the old generation may answer"}},
		"signal":              {[]string{"--stop-signal", "BANANA", "--", "true"}, 2, []string{"BANANA"}},
		"restart":             {[]string{"--restart", "maybe", "--", "true"}, 2, []string{"maybe", "on-failure"}},
		"instances":           {[]string{"--instances", "0", "--", "true"}, 2, []string{"--instances"}},
		"no path":             {[]string{"--capture-unix", "", "--", "true"}, 2, []string{"--capture-unix needs a path"}},
		"umask":               {[]string{"--umask", "999", "--", "true"}, 2, []string{"999"}},
		"not found":           {[]string{"--", "no-such-command"}, 127, []string{"no-such-command", "PATH"}},
		"no such file":        {[]string{"--", "./no-such-file"}, 127, []string{"no-such-file"}},
		"not executable":      {[]string{"--", text}, 126, []string{"chmod +x"}},
		"a directory":         {[]string{"--", dir}, 126, []string{"directory"}},
		"exits at once":       {[]string{"--listen", "127.0.0.1:0", "--", quits}, 9, []string{"exit status 9", "not seen to use the --listen sockets"}},
		"env file missing":    {[]string{"--env-file", dir + "/none", "--", "true"}, 1, []string{"--env-file", "no such file"}},
		"env file malformed":  {[]string{"--env-file", secret, "--", "true"}, 1, []string{"line 2"}},
		"directory missing":   {[]string{"--chdir", dir + "/none", "--", "true"}, 1, []string{"--chdir"}},
		"user":                {[]string{"--user", "no-such-user", "--", "true"}, 1, []string{"no-such-user"}},
		"group":               {[]string{"--group", "no-such-group", "--", "true"}, 1, []string{"no-such-group"}},
		"unknown fd name":     {[]string{"--listen", "web=127.0.0.1:0", "--", "echo", "{fd:wbe}"}, 1, []string{"wbe", "web"}},
		"pid file":            {[]string{"--pid-file", dir + "/none/pid", "--", "true"}, 1, []string{"--pid-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := grace(t, test.arguments...)
			if status := s.wait(); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			<-s.drained
			for _, want := range test.says {
				if !strings.Contains(s.output(), want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if strings.Contains(s.output(), "secret value") {
				t.Error("a value from the environment is in the log")
			}
		})
	}
}

func (s *supervised) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(strings.Join(s.text, "\n"), `\"`, `"`)
}

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := writeFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeFile lets no process be born meanwhile. It would have the descriptor until its exec, and nobody can execute a file
// that somebody may write to (execve(2), ETXTBSY).
func writeFile(path, text string, mode os.FileMode) error {
	if mode&0o111 != 0 {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	return os.WriteFile(path, []byte(text), mode)
}

func TestAddressInUseNamesItsHolderWhoCanBeEvicted(t *testing.T) {
	addr := freeport.Address(t)
	holder := grace(t, "--listen", "web="+addr, "--", appBinary)
	holder.ready(1)
	second := grace(t, "--listen", addr, "--", appBinary)
	if status := second.wait(); status != 1 {
		t.Errorf("status %d", status)
	}
	<-second.drained
	for _, want := range []string{addr, strconv.Itoa(holder.cmd.Process.Pid), "root", "grace", "--evict"} {
		if !strings.Contains(second.output(), want) {
			t.Errorf("it does not say %q: %s", want, second.output())
		}
	}
	third := grace(t, "--listen", "web="+addr, "--evict", "--", appBinary)
	third.ready(1)
	if status := holder.wait(); status != 0 {
		t.Errorf("the evicted grace ended with %d", status)
	}
	third.stop()
}

func TestPrivilegedPort(t *testing.T) {
	s := graceWith(t, asNobody, "--listen", "127.0.0.1:81", "--", "/bin/true")
	if status := s.wait(); status != 1 {
		t.Errorf("status %d", status)
	}
	<-s.drained
	if !strings.Contains(s.output(), "ip_unprivileged_port_start") {
		t.Errorf("it does not say what to do: %s", s.output())
	}
}

func asNobody(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	c.Dir = "/"
}

func TestUnprivilegedGraceUpgrades(t *testing.T) {
	s := graceWith(t, asNobody, "--listen", "web=127.0.0.1:0", "--", appBinary)
	addr := s.address("web")
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() { s.upgrades(10) })
	s.stop()
}

func TestHangUpIsRefusedWithoutASocket(t *testing.T) {
	s := grace(t, "--capture", "off", "--ready-delay", "1ms", "--", "/bin/sleep", "1000")
	s.ready(1)
	s.signal(syscall.SIGHUP)
	if e := s.awaitMessage("upgrade refused"); !strings.Contains(e.Why, "--listen") {
		t.Errorf("why: %s", e.Why)
	}
	s.stop()
}

func TestFloodOfHangUps(t *testing.T) {
	flood := filepath.Join(t.TempDir(), "flood")
	s := grace(t, "--listen", "web=127.0.0.1:0", "--check", "while test -e "+flood+"; do sleep 0.01; done", "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	touch(t, flood)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		for range 1000 {
			s.signal(syscall.SIGHUP)
		}
		if err := os.Remove(flood); err != nil {
			t.Fatal(err)
		}
		s.ready(2)
		// Those that came before the first was taken are one to the kernel, and those after it one to grace.
		s.signal(syscall.SIGHUP)
		s.ready(3)
	})
	s.stop()
	for _, e := range s.entries() {
		if e.Generation > 4 {
			t.Fatalf("the flood made generation %d", e.Generation)
		}
	}
}

func TestFloodOfHangUpsDoesNotCostATERM(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary)
	s.ready(1)
	for range 2000 {
		s.signal(syscall.SIGHUP)
		s.signal(syscall.SIGCHLD)
	}
	s.stop()
}

// HUP at every phase: while the first generation starts, while a candidate
// starts, while an old one drains, after a failure, and in a restart's backoff.
func TestHangUpInEveryPhase(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary, "-delay", "50ms", "-fail", broken)
	addr := s.address("web")
	s.awaitOf("instance started", 1)
	s.signal(syscall.SIGHUP)
	s.ready(2)
	s.signal(syscall.SIGHUP)
	s.awaitOf("instance started", 3)
	s.signal(syscall.SIGHUP)
	s.ready(3)
	s.ready(4)
	s.failOnce(broken, 5)
	s.upgrade(6)
	request := begin(t, addr)
	s.upgrade(7)
	s.awaitOf("generation draining", 6)
	s.upgrade(8)
	request.finish()
	s.crash(8)
	s.awaitOf("restarting", 8)
	s.upgrade(9)
	s.stop()
}

// crash kills the process that serves.
func (s *supervised) crash(generation int) {
	s.t.Helper()
	pid := 0
	for _, e := range s.entries() {
		if e.Message == "instance started" && e.Generation == generation {
			pid = e.PID
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
}

func TestStopDuringAStart(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary, "-delay", "1h")
	s.awaitOf("instance started", 1)
	s.stop()
	s = grace(t, "--listen", "web=127.0.0.1:0", "--check", "sleep 3600", "--", appBinary)
	s.ready(1)
	s.signal(syscall.SIGHUP)
	s.stop()
}

func TestAppThatNeverGetsReady(t *testing.T) {
	t.Parallel()
	slow, more := script(t, t.TempDir())
	s := grace(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "4s", "--", slow)
	addr := s.address("web")
	s.ready(1)
	if err := os.WriteFile(more, []byte("-delay 1h"), 0o644); err != nil {
		t.Fatal(err)
	}
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		s.signal(syscall.SIGHUP)
		e := s.awaitOf("upgrade failed, generation 1 still serves", 2)
		for _, want := range []string{"4s", "waits for connections on web", "pid"} {
			if !strings.Contains(e.Why, want) {
				t.Errorf("why: %s", e.Why)
			}
		}
		s.awaitOf("generation ended", 2)
	})
	if err := os.Remove(more); err != nil {
		t.Fatal(err)
	}
	s.upgrade(3)
	s.stop()
}

// An app that took its sockets and fails is not suspected of binding by itself.
func TestHintIsOnlyForAppsThatLeaveTheirSocketsAlone(t *testing.T) {
	for _, test := range []struct {
		ready, app []string
		hint       bool
	}{
		{[]string{"--ready", "notify"}, nil, false},
		{[]string{"--ready", "delay", "--ready-delay", "1h"}, nil, false},
		{[]string{"--ready", "http://127.0.0.1:1/"}, nil, false},
		{[]string{"--ready", "notify"}, []string{"-addr", "127.0.0.1:0"}, true},
		{nil, []string{"-addr", "127.0.0.1:0"}, true},
	} {
		t.Run(fmt.Sprintf("%q %q", test.ready, test.app), func(t *testing.T) {
			t.Parallel()
			arguments := append([]string{"--listen", "web=127.0.0.1:0", "--ready-timeout", "5s"}, test.ready...)
			s := grace(t, append(append(arguments, "--", appBinary), test.app...)...)
			e := s.awaitMessage("first generation failed")
			if strings.Contains(e.Why, "not seen to use the --listen sockets") != test.hint {
				t.Error(e.Why)
			}
			if status := s.wait(); status != 124 {
				t.Errorf("status %d", status)
			}
		})
	}
}

func TestFirstGenerationThatNeverGetsReady(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "300ms", "--", "/bin/sleep", "1000")
	if status := s.wait(); status != 124 {
		t.Errorf("status %d", status)
	}
}

// READY=1 from an app that does not serve its sockets must not cost the
// generation that does.
func TestWordOfAnAppThatDoesNotServe(t *testing.T) {
	t.Parallel()
	program, arguments := script(t, t.TempDir())
	s := grace(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "4s", "--", program)
	addr := s.address("web")
	s.ready(1)
	if err := os.WriteFile(arguments, []byte("-addr 127.0.0.1:0 -notify 0s"), 0o644); err != nil {
		t.Fatal(err)
	}
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		s.signal(syscall.SIGHUP)
		e := s.awaitOf("upgrade failed, generation 1 still serves", 2)
		if !strings.Contains(e.Why, "nothing in it waits for connections on web") {
			t.Errorf("why: %s", e.Why)
		}
	})
	s.awaitOf("not ready yet", 2)
	s.stop()
}

func TestAppThatHangsOnItsDrain(t *testing.T) {
	t.Parallel()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "4s", "--", appBinary, "-ignore-term")
	addr := s.address("web")
	s.ready(1)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.upgrade(2)
	s.awaitOf("draining (1 connections in flight)", 1)
	s.awaitOf("gave up draining, killing", 1)
	if e := s.awaitOf("generation ended", 1); !strings.Contains(e.Why, "killed, with 1 connections") {
		t.Errorf("why: %s", e.Why)
	}
	s.signal(syscall.SIGTERM)
	if status := s.wait(); status != 137 {
		t.Errorf("status %d after a stop that needed KILL", status)
	}
	s.checkNothingLeft()
}

func TestChildrenThatAreLeftBehindAreKilled(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "500ms", "--", appBinary, "-leave-children")
	s.ready(1)
	s.upgrade(2)
	s.awaitOf("instance ended", 1)
	s.awaitOf("generation ended", 1)
	checkGone(t, s.awaitOf("instance started", 1).PID)
}

// A stranger floods the socket and says READY=1 for an app that is not.
func TestStrangerOnTheNotifySocket(t *testing.T) {
	t.Parallel()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--ready", "notify", "--", appBinary, "-notify", "500ms")
	started := s.awaitOf("instance started", 1)
	conn, err := net.Dial("unixgram", notifySocket(s, started.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 20000 {
		text := "READY=1"
		if i%2 == 0 {
			text = strings.Repeat("\xff\x00garbage", 100)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	if e := s.ready(1); e.Took < 500 {
		t.Errorf("a stranger's READY=1 counted: ready after %v ms", e.Took)
	}
	s.awaitMessage("NOTIFY_SOCKET message refused")
	s.upgrade(2)
	s.stop()
}

// notifySocket waits for the exec, before which the environment is the shim's.
func notifySocket(s *supervised, pid int) string {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, entry := range strings.Split(string(env), "\x00") {
			if path, ok := strings.CutPrefix(entry, "NOTIFY_SOCKET="); ok {
				return path
			}
		}
	}
	s.t.Fatal("the app has no NOTIFY_SOCKET")
	return ""
}

// Without descriptors or processes an upgrade fails; what serves goes on.
func TestExhaustedLimits(t *testing.T) {
	s := graceWith(t, asNobody, "--listen", "web=127.0.0.1:0", "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		for i, limit := range []string{"nofile", "nproc"} {
			setLimit(s, limit, "1")
			s.signal(syscall.SIGHUP)
			e := s.awaitOf("upgrade failed, generation", 2+2*i)
			if !strings.Contains(e.Why, "limit") {
				t.Errorf("why: %s", e.Why)
			}
			setLimit(s, limit, "4000")
			s.upgrade(3 + 2*i)
		}
	})
	s.stop()
}

// limit sets a soft limit of a grace of nobody, as nobody: root may lack the
// right to do it for another user.
func setLimit(s *supervised, name, soft string) {
	s.t.Helper()
	c := exec.Command("prlimit", "--pid", strconv.Itoa(s.cmd.Process.Pid), "--"+name+"="+soft+":")
	asNobody(c)
	if out, err := c.CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
}

func TestClosedStderr(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	addr := freeport.Address(t)
	c := exec.Command("/bin/sh", "-c", `exec "$0" "$@" 2>&-`, graceBinary, "run", "--pid-file", pidFile, "--listen", "web="+addr, "--", appBinary)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	l, err := load.Start(context.Background(), load.Config{Addr: awaitAddress(t, addr), Clients: everyKind, ThinkMax: time.Millisecond, Paths: map[load.Kind]string{load.Slow: "/slow?for=100ms"}})
	if err != nil {
		t.Fatal(err)
	}
	for g := 1; g <= 3; g++ {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := l.Await(ctx, func(s load.Source) bool { return s.Generation == g }); err != nil {
			t.Fatalf("generation %d never answered: %v", g, err)
		}
		cancel()
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if tally := l.Stop(); tally.Failures() > 0 {
		t.Errorf("%v, first %v", tally.ByFailure(), tally.First)
	}
	c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func awaitAddress(t *testing.T, addr string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
