package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/terminal"
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

func TestCheckGuardsAnUpgrade(t *testing.T) {
	dir := t.TempDir()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--chdir", dir, "--check", "echo looking at it; test ! -e broken", "--", harness.AppBinary())
	s.AwaitReady(1)
	harness.Write(t, dir, "broken", "", 0o600)
	s.Signal(syscall.SIGHUP)
	e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
	if !strings.Contains(e.Why, "--check failed (exit status 1): looking at it") {
		t.Errorf("why: %s", e.Why)
	}
	if err := os.Remove(filepath.Join(dir, "broken")); err != nil {
		t.Fatal(err)
	}
	s.Upgrade(3)
	for _, e := range s.Entries() {
		if e.Message == "instance started" && e.Generation == 2 {
			t.Error("the generation that failed its check was started")
		}
	}
	s.Stop()
}

func TestEnvFileIsReadAnewAndNeverLogged(t *testing.T) {
	file := harness.Write(t, t.TempDir(), "env", "# comment\nCOLOUR='light blue'\nexport TOKEN=\"a\\\"b\"\n", 0o600)
	s := harness.StartWith(t, func(c *exec.Cmd) {
		c.Env = append(os.Environ(), "COLOUR=red", "LISTEN_FDS=7", "NOTIFY_SOCKET=/nowhere", "GRACE_LOG_LEVEL=debug", "TABLEFLIP_HAS_PARENT_7DIU3=yes", "PLAIN=1")
	}, "--listen", "web=127.0.0.1:0", "--env-file", file, "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	env := harness.Get(t, addr, "/env")
	for _, want := range []string{"COLOUR=light blue\n", "TOKEN=a\"b\n", "PLAIN=1\n", "GRACE_GENERATION=1\n", "LISTEN_FDS=1\n", "LISTEN_FDNAMES=web\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("the app lacks %q", want)
		}
	}
	for _, unwanted := range []string{"COLOUR=red", "LISTEN_FDS=7", "/nowhere", "GRACE_LOG_LEVEL", "TABLEFLIP"} {
		if strings.Contains(env, unwanted) {
			t.Errorf("the app has %q", unwanted)
		}
	}
	harness.Write(t, filepath.Dir(file), "env", "COLOUR=green\n", 0o600)
	s.Upgrade(2)
	s.AwaitGeneration("generation ended", 1)
	if env := harness.Get(t, addr, "/env"); !strings.Contains(env, "COLOUR=green\n") {
		t.Error("the file was not read anew")
	}
	harness.Write(t, filepath.Dir(file), "env", "no assignment\n", 0o600)
	s.Signal(syscall.SIGHUP)
	s.AwaitGeneration("upgrade failed, generation 2 still serves", 3)
	s.Stop()
	if strings.Contains(s.Output(), "light blue") || strings.Contains(s.Output(), "a\"b") {
		t.Error("a value is in the log")
	}
}

// A link that was moved is followed by an upgrade, and not by a crash restart.
func TestCurrentLink(t *testing.T) {
	dir := t.TempDir()
	for _, release := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, release), 0o755); err != nil {
			t.Fatal(err)
		}
		harness.Write(t, dir, release+"/run", "#!/bin/sh\nRELEASE="+release+" exec "+harness.AppBinary()+"\n", 0o755)
	}
	link := func(release string) {
		if err := os.Symlink(release, filepath.Join(dir, "next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "current")); err != nil {
			t.Fatal(err)
		}
	}
	link("1")
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--chdir", filepath.Join(dir, "current"), "--", "./run")
	addr := s.Address("web")
	s.AwaitReady(1)
	env := harness.Get(t, addr, "/env")
	if !strings.Contains(env, "RELEASE=1\n") || !strings.Contains(env, "PWD="+filepath.Join(dir, "current")+"\n") {
		t.Errorf("environment:\n%s", env)
	}
	link("2")
	s.Crash(1)
	s.Await("a restart", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Instance == 2 })
	if env := harness.Get(t, addr, "/env"); !strings.Contains(env, "RELEASE=1\n") {
		t.Errorf("a crash restart followed the link:\n%s", env)
	}
	s.Upgrade(2)
	s.AwaitGeneration("generation ended", 1)
	if env := harness.Get(t, addr, "/env"); !strings.Contains(env, "RELEASE=2\n") {
		t.Errorf("the upgrade did not follow the link:\n%s", env)
	}
	s.Stop()
}

// While the app is down its clients wait and are not refused.
func TestCrashQueuesNewClients(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	for life := 1; life <= 3; life++ {
		s.AwaitInstance("instance ready", life)
		s.Crash(1)
		if body := harness.Get(t, addr, "/"); !strings.Contains(body, "Hello from generation 1") {
			t.Errorf("got %q", body)
		}
	}
	s.Stop()
}

// An app that does not recover is given up with its status; what the others have they finish.
func TestAppThatIsRestartedTooOftenIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	fails := harness.Write(t, dir, "fails", "#!/bin/sh\n[ $GRACE_INSTANCE = 0 ] || exec "+harness.AppBinary()+"\nwhile [ ! -e "+dir+"/now ]; do sleep 0.01; done; exit 7\n", 0o755)
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready", "delay", "--ready-delay", "300ms", "--instances", "2", "--restart-limit", "2/10m", "--", fails)
	s.AwaitReady(1)
	request := harness.BeginRequest(t, s.Address("web"))
	harness.Write(t, dir, "now", "", 0o644)
	if e := s.AwaitMessage("the app was restarted too often, stopping"); e.Why != "2 restarts within 10m0s (--restart-limit)" {
		t.Errorf("the reason is %s", e.Why)
	}
	request.Finish()
	s.Ends(7)
	if n := strings.Count(s.Output(), `"message":"restarting"`); n != 2 {
		t.Errorf("%d restarts", n)
	}
}

func TestMaxDrainingWaits(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--max-draining", "1", "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	request := harness.BeginRequest(t, addr)
	s.Upgrade(2)
	s.Signal(syscall.SIGHUP)
	if e := s.AwaitMessage("upgrade waits"); !strings.Contains(e.Why, "1 old generation still draining (--max-draining)") {
		t.Errorf("why: %s", e.Why)
	}
	s.AwaitGeneration("draining (1 connection in flight)", 1)
	request.Finish()
	s.AwaitReady(3)
	log := s.Entries()
	if index(log, "generation ended", 1) > index(log, "instance started", 3) {
		t.Error("it did not wait")
	}
	s.Stop()
}

func index(log []harness.Entry, message string, generation int) int {
	for i, e := range log {
		if e.Message == message && e.Generation == generation {
			return i
		}
	}
	return len(log)
}

func TestDrainDelay(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--drain-delay", "15s", "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2}}, func() {
		s.Signal(syscall.SIGTERM)
		s.AwaitMessage("still serving until --drain-delay is over")
		if body := harness.Get(t, addr, "/"); !strings.Contains(body, "Hello") {
			t.Errorf("got %q", body)
		}
	})
	s.Ends(0)
}

func TestSecondSignalAndQuitEndAtOnce(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "1h", "--", harness.AppBinary(), "-ignore-term")
		s.AwaitReady(1)
		s.SignalUntilStoppingAtOnce(sig)
		s.Ends(137)
	}
}

// As sent by timeout(1) and by npm. Who has a request under way is answered.
func TestStopSignalThatComesTwiceIsOne(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]syscall.Signal{{syscall.SIGTERM, syscall.SIGTERM}, {syscall.SIGINT, syscall.SIGINT}, {syscall.SIGINT, syscall.SIGTERM}} {
		s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
		addr := s.Address("web")
		s.AwaitReady(1)
		r := harness.BeginRequest(t, addr)
		s.Signal(pair[0])
		s.Signal(pair[1])
		s.AwaitMessage("generation draining")
		r.Finish()
		s.Ends(0)
	}
}

// Who connects while the app finishes what it has is refused at once, and does not wait in a queue that nobody reads.
func TestStopRefusesWhoComesLate(t *testing.T) {
	t.Parallel()
	for _, way := range []struct{ network, address, capture string }{
		{"tcp", "127.0.0.1:0", "auto"}, {"tcp", "127.0.0.1:0", "off"}, {"unix", "unix://" + filepath.Join(t.TempDir(), "socket"), "auto"},
	} {
		t.Run(way.network+", capture "+way.capture, func(t *testing.T) {
			s := harness.Start(t, "--listen", "web="+way.address, "--capture", way.capture, "--drain-timeout", "10m", "--", harness.AppBinary())
			at := s.Address("web")
			s.AwaitReady(1)
			r := harness.BeginRequest(t, at)
			s.Signal(syscall.SIGTERM)
			harness.Until(t, "the address is refused", func() bool {
				conn, err := net.Dial(way.network, at)
				if err == nil {
					conn.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
			})
			r.Finish()
			s.Ends(0)
		})
	}
}

// A listener that the old generation shut down lives on.
func TestListenerThatIsShutDownIsRevived(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-shutdown-listener")
	addr := s.Address("web")
	s.AwaitReady(1)
	s.Upgrade(2)
	if e := s.AwaitMessage("listener web revived"); !strings.Contains(e.Why, "generation 1") {
		t.Errorf("why: %s", e.Why)
	}
	s.AwaitGeneration("generation ended", 1)
	if body := harness.Get(t, addr, "/"); !strings.Contains(body, "generation 2") {
		t.Errorf("got %q", body)
	}
	s.Stop()
}

func TestSignalsAreForwarded(t *testing.T) {
	dir := t.TempDir()
	program := harness.Write(t, dir, "program", `#!/bin/sh
for s in USR1 ALRM WINCH 40; do trap "echo got $s" $s; done
trap 'exit 0' TERM
echo trapped
while :; do sleep 0.01; done
`, 0o755)
	s := harness.StartWith(t, func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }, "--ready-delay", "1ms", "--", program)
	s.AwaitReady(1)
	s.AwaitLine("trapped")
	for name, sig := range map[string]syscall.Signal{"USR1": syscall.SIGUSR1, "ALRM": syscall.SIGALRM, "WINCH": syscall.SIGWINCH, "40": 40} {
		s.Signal(sig)
		s.AwaitLine("got " + name)
	}
	s.Stop()
}

// A shell's <(command) gives its text once. The first generation gets it, and no further one is started without it.
func TestEnvFileThatCanBeReadOnce(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := to.WriteString("MESSAGE=hello\n"); err != nil {
		t.Fatal(err)
	}
	to.Close()
	program := harness.Write(t, t.TempDir(), "program", "#!/bin/sh\necho message $MESSAGE\nexec sleep 1000\n", 0o755)
	s := harness.StartWith(t, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{from} }, "--env-file", "/dev/fd/3", "--ready-delay", "1ms", "--", program)
	s.AwaitReady(1)
	s.AwaitLine("message hello")
	s.Signal(syscall.SIGHUP)
	if e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2); !strings.Contains(e.Why, "/dev/fd/3 is a pipe that gives nothing") {
		t.Errorf("why: %s", e.Why)
	}
	s.Stop()
}

// Who reads grace's pid in a file, or that the app serves, may send any signal at once. TTOU would stop a program that does not catch it.
func TestSignalsThatComeAtOnceAreCaught(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	for range 3 {
		s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--pid-file", pidFile, "--", harness.AppBinary())
		harness.Until(t, "the pid file is there", func() bool { _, err := os.Stat(pidFile); return err == nil })
		s.Signal(syscall.SIGTTOU)
		s.AwaitReady(1)
		s.Stop()
		s = harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
		s.AwaitReady(1)
		s.Signal(syscall.SIGTTOU)
		s.Stop()
	}
}

// What grace would use itself goes to the app where that is wanted, and what is only the app's is sent as another signal. Both
// over a reexec, too.
func TestSignalsAreMapped(t *testing.T) {
	name := fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	program := harness.Write(t, t.TempDir(), "program", `#!/bin/sh
for s in HUP USR1 USR2 TTIN INT; do trap "echo got $s" $s; done
trap 'exit 0' TERM
echo trapped
while :; do sleep 0.01; done
`, 0o755)
	s := harness.Start(t, "--name", name, "--ready-delay", "1ms", "--signal", "USR1=USR2", "--signal", "HUP=SIGHUP", "--signal", "TTIN=INT", "--", program)
	s.AwaitReady(1)
	s.AwaitLine("trapped")
	awaitTimes := func(line string, times int) {
		harness.Until(t, line, func() bool { return strings.Count(s.Output(), line+"\n") == times })
	}
	for times := 1; times <= 2; times++ {
		for sig, got := range map[syscall.Signal]string{syscall.SIGUSR1: "USR2", syscall.SIGHUP: "HUP", syscall.SIGTTIN: "INT"} {
			s.Signal(sig)
			awaitTimes("got "+got, times)
		}
		for _, sig := range []string{"HUP", "SIGUSR1"} {
			out, err := exec.Command(harness.GraceBinary(), "signal", name, sig).CombinedOutput()
			if want := strings.TrimPrefix(sig, "SIG") + " sent to generation 1\n"; err != nil || string(out) != want {
				t.Fatalf("%v: said %q, want %q", err, out, want)
			}
		}
		awaitTimes("got USR1", times)
		harness.Until(t, "HUP was sent by the command, too", func() bool { return strings.Count(s.Output(), "got HUP\n") == 2*times })
		s.Signal(syscall.SIGUSR2)
		s.AwaitTimes("taken over", times, func(e harness.Entry) bool { return e.Message == "taken over" })
	}
	for _, e := range s.Entries() {
		if e.Generation > 1 {
			t.Fatal("the HUP of the app caused an upgrade")
		}
	}
	s.Stop()
}

// nohup says that a closed terminal is no reason to do anything.
func TestIgnoredHangUpStaysIgnored(t *testing.T) {
	c := exec.Command("/bin/sh", "-c", `trap "" HUP; exec "$0" "$@"`, harness.GraceBinary(), "run", "--log-format", "json", "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	s := harness.StartWith(t, func(own *exec.Cmd) { own.Path, own.Args = c.Path, c.Args })
	s.AwaitReady(1)
	for n := range 2 { // of another grace process in the same process, too
		s.Signal(syscall.SIGHUP)
		s.Signal(syscall.SIGUSR2) // what comes after it shows that it was not taken
		seen := 0
		s.Await("taken over", func(e harness.Entry) bool {
			if e.Message == "taken over" {
				seen++
			}
			return seen > n
		})
	}
	for _, e := range s.Entries() {
		if e.Generation > 1 {
			t.Fatal("the ignored HUP caused an upgrade")
		}
	}
	s.Stop()
}

func TestPidOneReapsAndPassesTheStatusOn(t *testing.T) {
	program := harness.Write(t, t.TempDir(), "program", `#!/bin/sh
i=0; while [ $i -lt 20 ]; do (setsid sh -c 'exit 0' &); i=$((i+1)); done
while [ "$(grep -l '^State:	Z' /proc/[0-9]*/status 2>/dev/null | wc -l)" -gt 0 ] || [ "$(ls -d /proc/[0-9]* | wc -l)" -gt 6 ]; do sleep 0.01; done
echo "pid 1 is $(cat /proc/1/comm)"
exit 42
`, 0o755)
	s := harness.StartWith(t, func(c *exec.Cmd) {
		c.Args = append([]string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}, append([]string{harness.GraceBinary()}, c.Args[1:]...)...)
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		c.Path = path
	}, "--restart", "never", "--ready-delay", "1ms", "--", program)
	s.Contained = true
	s.Ends(42)
	s.AwaitLine("pid 1 is grace")
}

func TestUserGroupUmaskAndPIDFile(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	program := harness.Write(t, dir, "program", `#!/bin/sh
echo "$(id -u):$(id -g):$(id -G) $(umask) $HOME $USER"
exec sleep 1000
`, 0o755)
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := harness.Start(t, "--ready-delay", "1ms", "--user", "nobody", "--group", "12345", "--umask", "027", "--pid-file", pidFile, "--", program)
	s.AwaitReady(1)
	s.AwaitLine("65534:12345:12345 0027 /nonexistent nobody")
	text, err := os.ReadFile(pidFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(s.PID()) {
		t.Errorf("pid file %q, %v", text, err)
	}
	s.Stop()
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Errorf("the pid file was left: %v", err)
	}
	s = harness.Start(t, "--ready-delay", "1ms", "--pid-file", pidFile, "--", "/bin/sleep", "1000")
	s.AwaitReady(1)
	harness.Write(t, dir, "pid", "1\n", 0o644)
	s.Stop()
	if _, err := os.Stat(pidFile); err != nil {
		t.Errorf("the pid file of another was removed: %v", err)
	}
}

// Port 80 is grace's to bind, and the app never is root.
func TestAppOfAnotherUserServesAndNotifies(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--user", "nobody", "--ready", "notify", "--", harness.AppBinary(), "-notify", "0s")
	addr := s.Address("web")
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { s.Upgrades(10) })
	s.Stop()
}

func TestWatchdogRestartsAHungApp(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--watchdog", "5s", "--", harness.AppBinary(), "-watchdog")
	addr := s.Address("web")
	s.AwaitReady(1)
	harness.Get(t, addr, "/hang")
	s.AwaitMessage("watchdog: no WATCHDOG=1 in time, killing the instance")
	s.Await("a restart", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Instance == 2 })
	s.Stop()
}

func TestDaemonisingAppIsFollowed(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-take", "fd:3", "-daemonize", "-notify", "0s")
	addr := s.Address("web")
	s.AwaitReady(1)
	moved := s.AwaitGeneration("another process is the main process now", 1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { s.Upgrade(2); s.Upgrade(3) })
	s.AwaitGeneration("generation ended", 1)
	harness.CheckEnded(t, moved.PID)
	s.Stop()
}

// What grace was given by its own parent is not the app's.
func TestAppHasNoOtherDescriptors(t *testing.T) {
	// No pipeline: while it makes one, the shell has descriptors of its own.
	program := harness.Write(t, t.TempDir(), "program", "#!/bin/sh\nls -l /proc/$$/fd\necho end\nexec sleep 1000\n", 0o755)
	extra, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	s := harness.StartWith(t, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{extra} },
		"--listen", "a=127.0.0.1:0", "--listen", "b=127.0.0.1:0", "--ready", "delay", "--ready-delay", "1ms", "--", program)
	s.AwaitLine("end")
	want := map[string]string{"0": "/dev/null", "1": "pipe:", "2": "pipe:", "3": "socket:", "4": "socket:"}
	for _, line := range strings.Split(s.Output(), "\n") {
		before, target, listed := strings.Cut(line, " -> ")
		if !listed || target == program {
			continue
		}
		fd := before[strings.LastIndex(before, " ")+1:]
		if kind, ok := want[fd]; !ok || !strings.HasPrefix(target, kind) {
			t.Errorf("unexpected: %s", line)
		}
		delete(want, fd)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	s.Stop()
}

// The terminal that grace was started in is closed: it stops, as a shell's child
// does, and does not take the HUP for an upgrade.
func TestClosedTerminalStopsGrace(t *testing.T) {
	master, terminal := terminal.Open(t)
	s := harness.StartWith(t, func(c *exec.Cmd) {
		c.Stdin = terminal
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	terminal.Close()
	s.AwaitReady(1)
	s.Signal(syscall.SIGHUP) // with the terminal there, it is an upgrade
	s.AwaitReady(2)
	master.Close()
	s.AwaitMessage("the terminal was closed")
	s.Ends(0)
}

func TestAppHasPlainSignalsAndLimits(t *testing.T) {
	const facts = `grep -E "Sig(Blk|Ign|Cgt)" /proc/self/status; ulimit -a; umask`
	plain, err := exec.Command("env", "--default-signal", "/bin/sh", "-c", facts).Output() // who runs the test may ignore some
	if err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, "--ready-delay", "1ms", "--", "/bin/sh", "-c", facts+"; echo end; exec sleep 1000")
	s.AwaitLine("end")
	for _, line := range strings.Split(strings.TrimSpace(string(plain)), "\n") {
		s.AwaitLine(line)
	}
	s.Stop()
}

// An app that shares its queue and dies of the stop signal cuts what it is answering. One that is started later, and stops well, would
// have been told of by then.
func TestAppWithoutHandlerForTheStopSignalIsToldOf(t *testing.T) {
	well := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	well.AwaitReady(1)
	wrapped := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready", "delay", "--ready-delay", "1ms", "--", "/bin/sh", "-c", `"$0"; exit $?`, harness.AppBinary())
	wrapped.AwaitReady(1)
	steered := harness.Start(t, "--listen", "web=127.0.0.1:0?steer=true", "--ready", "delay", "--ready-delay", "1ms", "--", "/bin/sleep", "1000")
	steered.AwaitReady(1)
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--ready", "delay", "--ready-delay", "1ms", "--", "/bin/sleep", "1000")
	told := func(e harness.Entry) bool { return strings.HasPrefix(e.Message, "the app has no handler for TERM") }
	if e := s.Await("the hint", told); !strings.Contains(e.Why, "?steer=true") {
		t.Errorf("it does not say what to do: %s", e.Why)
	}
	for _, other := range []*harness.Grace{well, wrapped, steered} {
		if slices.ContainsFunc(other.Entries(), told) {
			t.Errorf("told of an app that %s", other.Output())
		}
		other.Stop()
	}
	s.Stop()
}

func TestHintForTheStopSignal(t *testing.T) {
	program := harness.Write(t, t.TempDir(), "nginx", "#!/bin/sh\nexec sleep 1000\n", 0o755)
	s := harness.Start(t, "--ready-delay", "1ms", "--", program)
	s.AwaitMessage("nginx finishes its requests on QUIT; with TERM it may cut them (use --stop-signal QUIT)")
	s.Stop()
	s = harness.Start(t, "--ready-delay", "1ms", "--stop-signal", "QUIT", "--", program)
	s.AwaitReady(1)
	for _, e := range s.Entries() {
		if strings.Contains(e.Message, "--stop-signal") {
			t.Errorf("needless hint: %s", e.Message)
		}
	}
	s.Stop()
}

func TestInstancesAreReplacedOneByOneAndUpgradedTogether(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--instances", "3", "--", harness.AppBinary())
	s.AwaitReady(1)
	s.Crash(1)
	s.Await("a replacement", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Instance == 4 })
	s.Upgrade(2)
	s.AwaitGeneration("generation ended", 1)
	started := 0
	for _, e := range s.Entries() {
		if e.Message == "instance ready" && e.Generation == 2 {
			started++
		}
	}
	if started != 3 {
		t.Errorf("generation 2 has %d instances", started)
	}
	s.Stop()
}

// There is one instance for each CPU that the app can have, which is one here, and each has a number in its command.
func TestInstancesOfOneCPU(t *testing.T) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	first := 0
	for !set.IsSet(first) {
		first++
	}
	for count, want := range map[string]int{"auto": 1, "3": 3} {
		s := harness.StartCommand(t, exec.Command("taskset", "-c", strconv.Itoa(first), harness.GraceBinary(), "run", "--log-format", "json",
			"--instances", count, "--ready-delay", "1ms", "--", "sh", "-c", "echo this is instance {instance}; exec sleep 1000"))
		s.AwaitReady(1)
		for n := range want {
			s.AwaitLine(fmt.Sprintf("this is instance %d", n))
		}
		if n := strings.Count(s.Output(), `"message":"instance started"`); n != want {
			t.Errorf("%s: %d instances", count, n)
		}
		s.Stop()
	}
}

func TestTextLog(t *testing.T) {
	s := harness.Start(t, "--log-format", "text", "--ready-delay", "1ms", "--", "/bin/true")
	s.Ends(0)
	if text := s.Output(); strings.ContainsAny(text, "{\x1b") || !strings.Contains(text, "instance started") {
		t.Errorf("got %s", text)
	}
}
