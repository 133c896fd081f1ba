package faults

import (
	"context"
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
	"github.com/gracerun/grace/test/harness"
)

func TestBadInputIsToldAndEndsWithItsStatus(t *testing.T) {
	dir := t.TempDir()
	text := harness.Write(t, dir, "text", "hello\n", 0o644)
	quits := harness.Write(t, dir, "quits", "#!/bin/sh\nexit 9\n", 0o755)
	secret := harness.Write(t, dir, "env", "A=1\nsecret value\n", 0o600)
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
		"exits at once":       {[]string{"--listen", "127.0.0.1:0", "--", quits}, 9, []string{"exit status 9", "has not seen the app use the --listen sockets"}},
		"env file missing":    {[]string{"--env-file", dir + "/none", "--", "true"}, 1, []string{"--env-file", "no such file"}},
		"env file malformed":  {[]string{"--env-file", secret, "--", "true"}, 1, []string{"line 2"}},
		"directory missing":   {[]string{"--chdir", dir + "/none", "--", "true"}, 1, []string{"--chdir"}},
		"user":                {[]string{"--user", "no-such-user", "--", "true"}, 1, []string{"no-such-user"}},
		"group":               {[]string{"--group", "no-such-group", "--", "true"}, 1, []string{"no-such-group"}},
		"unknown fd name":     {[]string{"--listen", "web=127.0.0.1:0", "--", "echo", "{fd:wbe}"}, 1, []string{"wbe", "web"}},
		"pid file":            {[]string{"--pid-file", dir + "/none/pid", "--", "true"}, 1, []string{"--pid-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, test.arguments...)
			s.Ends(test.status)
			for _, want := range test.says {
				if !strings.Contains(s.Output(), want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if strings.Contains(s.Output(), "secret value") {
				t.Error("a value from the environment is in the log")
			}
		})
	}
}

func TestAddressInUseNamesItsHolderWhoCanBeEvicted(t *testing.T) {
	addr := freeport.Address(t)
	holder := harness.Start(t, "--listen", "web="+addr, "--", harness.AppBinary())
	holder.AwaitReady(1)
	second := harness.Start(t, "--listen", addr, "--", harness.AppBinary())
	second.Ends(1)
	for _, want := range []string{addr, strconv.Itoa(holder.PID()), "root", "grace", "--evict"} {
		if !strings.Contains(second.Output(), want) {
			t.Errorf("it does not say %q: %s", want, second.Output())
		}
	}
	third := harness.Start(t, "--listen", "web="+addr, "--evict", "--", harness.AppBinary())
	third.AwaitReady(1)
	holder.Ends(0)
	third.Stop()
}

func TestPrivilegedPort(t *testing.T) {
	s := harness.StartWith(t, harness.AsNobody, "--listen", "127.0.0.1:81", "--", "/bin/true")
	s.Ends(1)
	if !strings.Contains(s.Output(), "ip_unprivileged_port_start") {
		t.Errorf("it does not say what to do: %s", s.Output())
	}
}

func TestUnprivilegedGraceUpgrades(t *testing.T) {
	s := harness.StartWith(t, harness.AsNobody, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	addr := s.Address("web")
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { s.Upgrades(10) })
	s.Stop()
}

func TestHangUpIsRefusedWithoutASocket(t *testing.T) {
	s := harness.Start(t, "--capture", "off", "--ready-delay", "1ms", "--", "/bin/sleep", "1000")
	s.AwaitReady(1)
	s.Signal(syscall.SIGHUP)
	if e := s.AwaitMessage("upgrade refused"); !strings.Contains(e.Why, "--listen") {
		t.Errorf("why: %s", e.Why)
	}
	s.Stop()
}

func TestFloodOfHangUps(t *testing.T) {
	flood := filepath.Join(t.TempDir(), "flood")
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--check", "while test -e "+flood+"; do sleep 0.01; done", "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	harness.Touch(t, flood)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for range 1000 {
			s.Signal(syscall.SIGHUP)
		}
		if err := os.Remove(flood); err != nil {
			t.Fatal(err)
		}
		s.AwaitReady(2)
		// Those that came before the first was taken are one to the kernel, and those after it one to grace.
		s.Signal(syscall.SIGHUP)
		s.AwaitReady(3)
	})
	s.Stop()
	for _, e := range s.Entries() {
		if e.Generation > 4 {
			t.Fatalf("the flood made generation %d", e.Generation)
		}
	}
}

func TestFloodOfHangUpsDoesNotCostATERM(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	s.AwaitReady(1)
	for range 2000 {
		s.Signal(syscall.SIGHUP)
		s.Signal(syscall.SIGCHLD)
	}
	s.Stop()
}

// HUP at every phase: while the first generation starts, while a candidate
// starts, while an old one drains, after a failure, and in a restart's backoff.
func TestHangUpInEveryPhase(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-delay", "50ms", "-fail", broken)
	addr := s.Address("web")
	s.AwaitGeneration("instance started", 1)
	s.Signal(syscall.SIGHUP)
	s.AwaitReady(2)
	s.Signal(syscall.SIGHUP)
	s.AwaitGeneration("instance started", 3)
	s.Signal(syscall.SIGHUP)
	s.AwaitReady(3)
	s.AwaitReady(4)
	s.FailOnce(broken, 5)
	s.Upgrade(6)
	request := harness.BeginRequest(t, addr)
	s.Upgrade(7)
	s.AwaitGeneration("generation draining", 6)
	s.Upgrade(8)
	request.Finish()
	s.Crash(8)
	s.AwaitGeneration("restarting", 8)
	s.Upgrade(9)
	s.Stop()
}

func TestStopDuringAStart(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-delay", "1h")
	s.AwaitGeneration("instance started", 1)
	s.Stop()
	s = harness.Start(t, "--listen", "web=127.0.0.1:0", "--check", "sleep 3600", "--", harness.AppBinary())
	s.AwaitReady(1)
	s.Signal(syscall.SIGHUP)
	s.Stop()
}

func TestAppThatNeverGetsReady(t *testing.T) {
	t.Parallel()
	slow, more := harness.AppScript(t, t.TempDir())
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "10s", "--", slow)
	addr := s.Address("web")
	s.AwaitReady(1)
	if err := os.WriteFile(more, []byte("-delay 1h"), 0o644); err != nil {
		t.Fatal(err)
	}
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		s.Signal(syscall.SIGHUP)
		e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
		for _, want := range []string{"10s", "waits for connections on web", "pid"} {
			if !strings.Contains(e.Why, want) {
				t.Errorf("why: %s", e.Why)
			}
		}
		s.AwaitGeneration("generation ended", 2)
	})
	if err := os.Remove(more); err != nil {
		t.Fatal(err)
	}
	s.Upgrade(3)
	s.Stop()
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
			arguments := append([]string{"--listen", "web=127.0.0.1:0", "--ready-timeout", "10s"}, test.ready...)
			s := harness.Start(t, append(append(arguments, "--", harness.AppBinary()), test.app...)...)
			e := s.AwaitMessage("first generation failed")
			if strings.Contains(e.Why, "leave --listen out") != test.hint {
				t.Error(e.Why)
			}
			s.Ends(124)
		})
	}
}

func TestFirstGenerationThatNeverGetsReady(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "300ms", "--", "/bin/sleep", "1000")
	s.Ends(124)
}

// READY=1 from an app that does not serve its sockets must not cost the
// generation that does.
func TestWordOfAnAppThatDoesNotServe(t *testing.T) {
	t.Parallel()
	program, arguments := harness.AppScript(t, t.TempDir())
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "10s", "--", program)
	addr := s.Address("web")
	s.AwaitReady(1)
	if err := os.WriteFile(arguments, []byte("-addr 127.0.0.1:0 -notify 0s"), 0o644); err != nil {
		t.Fatal(err)
	}
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		s.Signal(syscall.SIGHUP)
		e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
		if !strings.Contains(e.Why, "no process of the app waits for connections on web") {
			t.Errorf("why: %s", e.Why)
		}
	})
	s.AwaitGeneration("not ready yet", 2)
	s.Stop()
}

func TestAppThatHangsOnItsDrain(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "10s", "--", harness.AppBinary(), "-ignore-term")
	addr := s.Address("web")
	s.AwaitReady(1)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.Upgrade(2)
	s.AwaitGeneration("draining (1 connection in flight)", 1)
	s.AwaitGeneration("drain timed out, killing the instance", 1)
	if e := s.AwaitGeneration("generation ended", 1); !strings.Contains(e.Why, "killed, with 1 connection") {
		t.Errorf("why: %s", e.Why)
	}
	s.Signal(syscall.SIGTERM)
	s.Ends(137)
}

func TestChildrenThatAreLeftBehindAreKilled(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "500ms", "--", harness.AppBinary(), "-leave-children")
	s.AwaitReady(1)
	s.Upgrade(2)
	s.AwaitGeneration("instance ended", 1)
	s.AwaitGeneration("generation ended", 1)
	harness.CheckGone(t, s.AwaitGeneration("instance started", 1).PID)
}

// A stranger floods the socket and says READY=1 for an app that is not.
func TestStrangerOnTheNotifySocket(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready", "notify", "--", harness.AppBinary(), "-notify", "500ms")
	started := s.AwaitGeneration("instance started", 1)
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
	if e := s.AwaitReady(1); e.Took < 500 {
		t.Errorf("a stranger's READY=1 counted: ready after %v ms", e.Took)
	}
	s.AwaitMessage("NOTIFY_SOCKET message refused")
	s.Upgrade(2)
	s.Stop()
}

// notifySocket waits for the exec, before which the environment is the shim's.
func notifySocket(s *harness.Grace, pid int) string {
	s.T.Helper()
	path := ""
	harness.Until(s.T, "the app has a NOTIFY_SOCKET", func() (has bool) {
		for entry := range strings.SplitSeq(harness.Read(s.T, fmt.Sprintf("/proc/%d/environ", pid)), "\x00") {
			if path, has = strings.CutPrefix(entry, "NOTIFY_SOCKET="); has {
				return true
			}
		}
		return false
	})
	return path
}

// Without descriptors or processes an upgrade fails; what serves goes on.
func TestExhaustedLimits(t *testing.T) {
	s := harness.StartWith(t, harness.AsNobody, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for i, limit := range []string{"nofile", "nproc"} {
			setLimit(s, limit, "1")
			s.Signal(syscall.SIGHUP)
			e := s.AwaitGeneration("upgrade failed, generation", 2+2*i)
			if !strings.Contains(e.Why, "limit") {
				t.Errorf("why: %s", e.Why)
			}
			setLimit(s, limit, "4000")
			s.Upgrade(3 + 2*i)
		}
	})
	s.Stop()
}

// limit sets a soft limit of a grace process of nobody, as nobody: root may lack the
// right to do it for another user.
func setLimit(s *harness.Grace, name, soft string) {
	s.T.Helper()
	c := exec.Command("prlimit", "--pid", strconv.Itoa(s.PID()), "--"+name+"="+soft+":")
	harness.AsNobody(c)
	if out, err := c.CombinedOutput(); err != nil {
		s.T.Fatalf("%v: %s", err, out)
	}
}

func TestClosedStderr(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	addr := freeport.Address(t)
	c := exec.Command("/bin/sh", "-c", `exec "$0" "$@" 2>&-`, harness.GraceBinary(), "run", "--pid-file", pidFile, "--listen", "web="+addr, "--", harness.AppBinary())
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	harness.AwaitListener(t, "tcp", addr)
	l, err := load.Start(context.Background(), load.Config{Addr: addr, Clients: harness.EveryKind, ThinkMax: time.Millisecond, Paths: map[load.Kind]string{load.Slow: "/slow?for=100ms"}})
	if err != nil {
		t.Fatal(err)
	}
	for g := 1; g <= 3; g++ {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
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
