//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"golang.org/x/sys/unix"
)

// script writes a shell program that runs the app with the arguments found in a
// file beside it, so that a test can change the next generation.
func script(t *testing.T, dir string) (program, arguments string) {
	t.Helper()
	arguments = filepath.Join(dir, "arguments")
	return write(t, dir, "program", "#!/bin/sh\nexec "+appBinary+" $(cat "+arguments+" 2>/dev/null)\n", 0o755), arguments
}

func TestCheckGuardsAnUpgrade(t *testing.T) {
	dir := t.TempDir()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--chdir", dir, "--check", "echo looking at it; test ! -e broken", "--", appBinary)
	s.ready(1)
	write(t, dir, "broken", "", 0o600)
	s.signal(syscall.SIGHUP)
	e := s.awaitOf("upgrade failed, generation 1 still serves", 2)
	if !strings.Contains(e.Why, "--check failed (exit status 1): looking at it") {
		t.Errorf("why: %s", e.Why)
	}
	if err := os.Remove(filepath.Join(dir, "broken")); err != nil {
		t.Fatal(err)
	}
	s.upgrade(3)
	for _, e := range s.entries() {
		if e.Message == "instance started" && e.Generation == 2 {
			t.Error("the generation that failed its check was started")
		}
	}
	s.stop()
}

func TestEnvFileIsReadAnewAndNeverLogged(t *testing.T) {
	file := write(t, t.TempDir(), "env", "# comment\nCOLOUR='light blue'\nexport TOKEN=\"a\\\"b\"\n", 0o600)
	s := graceWith(t, func(c *exec.Cmd) {
		c.Env = append(os.Environ(), "COLOUR=red", "LISTEN_FDS=7", "NOTIFY_SOCKET=/nowhere", "GRACE_LOG_LEVEL=debug", "TABLEFLIP_HAS_PARENT_7DIU3=yes", "PLAIN=1")
	}, "--listen", "web=127.0.0.1:0", "--env-file", file, "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	env := ask(t, addr, "/env")
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
	write(t, filepath.Dir(file), "env", "COLOUR=green\n", 0o600)
	s.upgrade(2)
	s.awaitOf("generation ended", 1)
	if env := ask(t, addr, "/env"); !strings.Contains(env, "COLOUR=green\n") {
		t.Error("the file was not read anew")
	}
	write(t, filepath.Dir(file), "env", "no assignment\n", 0o600)
	s.signal(syscall.SIGHUP)
	s.awaitOf("upgrade failed, generation 2 still serves", 3)
	s.stop()
	if strings.Contains(s.output(), "light blue") || strings.Contains(s.output(), "a\"b") {
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
		write(t, dir, release+"/run", "#!/bin/sh\nRELEASE="+release+" exec "+appBinary+"\n", 0o755)
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
	s := grace(t, "--listen", "web=127.0.0.1:0", "--chdir", filepath.Join(dir, "current"), "--", "./run")
	addr := s.address("web")
	s.ready(1)
	env := ask(t, addr, "/env")
	if !strings.Contains(env, "RELEASE=1\n") || !strings.Contains(env, "PWD="+filepath.Join(dir, "current")+"\n") {
		t.Errorf("environment:\n%s", env)
	}
	link("2")
	s.crash(1)
	s.await("a restart", func(e entry) bool { return e.Message == "instance ready" && e.Instance == 2 })
	if env := ask(t, addr, "/env"); !strings.Contains(env, "RELEASE=1\n") {
		t.Errorf("a crash restart followed the link:\n%s", env)
	}
	s.upgrade(2)
	s.awaitOf("generation ended", 1)
	if env := ask(t, addr, "/env"); !strings.Contains(env, "RELEASE=2\n") {
		t.Errorf("the upgrade did not follow the link:\n%s", env)
	}
	s.stop()
}

// While the app is down its clients wait and are not refused.
func TestCrashQueuesNewClients(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	for life := 1; life <= 3; life++ {
		s.instance("instance ready", life)
		s.crash(1)
		if body := ask(t, addr, "/"); !strings.Contains(body, "Hello from generation 1") {
			t.Errorf("got %q", body)
		}
	}
	s.stop()
}

func TestMaxDrainingWaits(t *testing.T) {
	t.Parallel()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--max-draining", "1", "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	request := begin(t, addr)
	s.upgrade(2)
	s.signal(syscall.SIGHUP)
	if e := s.awaitMessage("upgrade waits"); !strings.Contains(e.Why, "1 generations still drain (--max-draining)") {
		t.Errorf("why: %s", e.Why)
	}
	s.awaitOf("draining (1 connections in flight)", 1)
	request.finish()
	s.ready(3)
	log := s.entries()
	if index(log, "generation ended", 1) > index(log, "instance started", 3) {
		t.Error("it did not wait")
	}
	s.stop()
}

func index(log []entry, message string, generation int) int {
	for i, e := range log {
		if e.Message == message && e.Generation == generation {
			return i
		}
	}
	return len(log)
}

func TestDrainDelay(t *testing.T) {
	t.Parallel()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--drain-delay", "4s", "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2}}, func() {
		s.signal(syscall.SIGTERM)
		s.awaitMessage("serving on before the drain")
		if body := ask(t, addr, "/"); !strings.Contains(body, "Hello") {
			t.Errorf("got %q", body)
		}
	})
	if status := s.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestSecondSignalAndQuitEndAtOnce(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		s := grace(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "1h", "--", appBinary, "-ignore-term")
		s.ready(1)
		s.signal(sig)
		for deadline := time.Now().Add(patience); !s.said("stopping at once") && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			s.signal(sig) // what comes within half a second is taken for the first one
		}
		if status := s.wait(); status != 137 {
			t.Errorf("%v: status %d", sig, status)
		}
		s.checkNothingLeft()
	}
}

// As sent by timeout(1) and by npm. Who has a request under way is answered.
func TestStopSignalThatComesTwiceIsOne(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]syscall.Signal{{syscall.SIGTERM, syscall.SIGTERM}, {syscall.SIGINT, syscall.SIGINT}, {syscall.SIGINT, syscall.SIGTERM}} {
		s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary)
		addr := s.address("web")
		s.ready(1)
		r := begin(t, addr)
		s.signal(pair[0])
		s.signal(pair[1])
		s.awaitMessage("generation draining")
		r.finish()
		if status := s.wait(); status != 0 {
			t.Errorf("%v: status %d", pair, status)
		}
	}
}

// A listener that the old generation shut down lives on.
func TestListenerThatIsShutDownIsRevived(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary, "-shutdown-listener")
	addr := s.address("web")
	s.ready(1)
	s.upgrade(2)
	if e := s.awaitMessage("listener web revived"); !strings.Contains(e.Why, "generation 1") {
		t.Errorf("why: %s", e.Why)
	}
	s.awaitOf("generation ended", 1)
	if body := ask(t, addr, "/"); !strings.Contains(body, "generation 2") {
		t.Errorf("got %q", body)
	}
	s.stop()
}

func TestSignalsAreForwarded(t *testing.T) {
	dir := t.TempDir()
	program := write(t, dir, "program", `#!/bin/sh
for s in USR1 ALRM WINCH 40; do trap "echo got $s" $s; done
trap 'exit 0' TERM
echo trapped
while :; do sleep 0.01; done
`, 0o755)
	s := graceWith(t, func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }, "--ready-delay", "1ms", "--", program)
	s.ready(1)
	s.awaitText("trapped")
	for name, sig := range map[string]syscall.Signal{"USR1": syscall.SIGUSR1, "ALRM": syscall.SIGALRM, "WINCH": syscall.SIGWINCH, "40": 40} {
		s.signal(sig)
		s.awaitText("got " + name)
	}
	s.stop()
}

func (s *supervised) awaitText(want string) {
	s.t.Helper()
	s.find(want, func(_ entry, text string) bool { return text == want })
}

// nohup says that a closed terminal is no reason to do anything.
func TestIgnoredHangUpStaysIgnored(t *testing.T) {
	c := exec.Command("/bin/sh", "-c", `trap "" HUP; exec "$0" "$@"`, graceBinary, "run", "--log-format", "json", "--listen", "web=127.0.0.1:0", "--", appBinary)
	s := graceWith(t, func(own *exec.Cmd) { own.Path, own.Args = c.Path, c.Args })
	s.ready(1)
	for n := range 2 { // of another grace in the same process, too
		s.signal(syscall.SIGHUP)
		s.signal(syscall.SIGUSR2) // what comes after it shows that it was not taken
		seen := 0
		s.await("taken over", func(e entry) bool {
			if e.Message == "taken over" {
				seen++
			}
			return seen > n
		})
	}
	for _, e := range s.entries() {
		if e.Generation > 1 {
			t.Fatal("the ignored HUP caused an upgrade")
		}
	}
	s.stop()
}

func TestPidOneReapsAndPassesTheStatusOn(t *testing.T) {
	program := write(t, t.TempDir(), "program", `#!/bin/sh
i=0; while [ $i -lt 20 ]; do (setsid sh -c 'exit 0' &); i=$((i+1)); done
while [ "$(grep -l '^State:	Z' /proc/[0-9]*/status 2>/dev/null | wc -l)" -gt 0 ] || [ "$(ls -d /proc/[0-9]* | wc -l)" -gt 6 ]; do sleep 0.01; done
echo "pid 1 is $(cat /proc/1/comm)"
exit 42
`, 0o755)
	s := graceWith(t, func(c *exec.Cmd) {
		c.Args = append([]string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}, append([]string{graceBinary}, c.Args[1:]...)...)
		path, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		c.Path = path
	}, "--restart", "never", "--ready-delay", "1ms", "--", program)
	if status := s.wait(); status != 42 {
		t.Errorf("status %d", status)
	}
	s.awaitText("pid 1 is grace")
}

func TestUserGroupUmaskAndPIDFile(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	program := write(t, dir, "program", `#!/bin/sh
echo "$(id -u):$(id -g):$(id -G) $(umask) $HOME $USER"
exec sleep 1000
`, 0o755)
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := grace(t, "--ready-delay", "1ms", "--user", "nobody", "--group", "12345", "--umask", "027", "--pid-file", pidFile, "--", program)
	s.ready(1)
	s.awaitText("65534:12345:12345 0027 /nonexistent nobody")
	text, err := os.ReadFile(pidFile)
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(s.cmd.Process.Pid) {
		t.Errorf("pid file %q, %v", text, err)
	}
	s.stop()
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Errorf("the pid file was left: %v", err)
	}
	s = grace(t, "--ready-delay", "1ms", "--pid-file", pidFile, "--", "/bin/sleep", "1000")
	s.ready(1)
	write(t, dir, "pid", "1\n", 0o644)
	s.stop()
	if _, err := os.Stat(pidFile); err != nil {
		t.Errorf("the pid file of another was removed: %v", err)
	}
}

// Port 80 is grace's to bind, and the app never is root.
func TestAppOfAnotherUserServesAndNotifies(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--user", "nobody", "--ready", "notify", "--", appBinary, "-notify", "0s")
	addr := s.address("web")
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() { s.upgrades(10) })
	s.stop()
}

func TestWatchdogRestartsAHungApp(t *testing.T) {
	t.Parallel()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--watchdog", "1s", "--", appBinary, "-watchdog")
	addr := s.address("web")
	s.ready(1)
	ask(t, addr, "/hang")
	s.awaitMessage("watchdog: no sign of life")
	s.await("a restart", func(e entry) bool { return e.Message == "instance ready" && e.Instance == 2 })
	s.stop()
}

func TestDaemonisingAppIsFollowed(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary, "-take", "fd:3", "-daemonize", "-notify", "0s")
	addr := s.address("web")
	s.ready(1)
	moved := s.awaitOf("main process moved", 1)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() { s.upgrade(2); s.upgrade(3) })
	s.awaitOf("generation ended", 1)
	if err := syscall.Kill(moved.PID, 0); err != syscall.ESRCH {
		t.Errorf("the daemon of generation 1 is still there: %v", err)
	}
	s.stop()
}

// What grace was given by its own parent is not the app's.
func TestAppHasNoOtherDescriptors(t *testing.T) {
	// No pipeline: while it makes one, the shell has descriptors of its own.
	program := write(t, t.TempDir(), "program", "#!/bin/sh\nls -l /proc/$$/fd\necho end\nexec sleep 1000\n", 0o755)
	extra, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	s := graceWith(t, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{extra} },
		"--listen", "a=127.0.0.1:0", "--listen", "b=127.0.0.1:0", "--ready", "delay", "--ready-delay", "1ms", "--", program)
	s.awaitText("end")
	want := map[string]string{"0": "/dev/null", "1": "pipe:", "2": "pipe:", "3": "socket:", "4": "socket:"}
	for _, line := range strings.Split(s.output(), "\n") {
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
	s.stop()
}

// openTerminal makes a pair of which the test closes what is left.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

// The terminal that grace was started in is closed: it stops, as a shell's child
// does, and does not take the HUP for an upgrade.
func TestClosedTerminalStopsGrace(t *testing.T) {
	master, terminal := openTerminal(t)
	s := graceWith(t, func(c *exec.Cmd) {
		c.Stdin = terminal
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}, "--listen", "web=127.0.0.1:0", "--", appBinary)
	terminal.Close()
	s.ready(1)
	s.signal(syscall.SIGHUP) // with the terminal there, it is an upgrade
	s.ready(2)
	master.Close()
	s.awaitMessage("the terminal is gone")
	if status := s.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	s.checkNothingLeft()
}

func TestAppHasPlainSignalsAndLimits(t *testing.T) {
	const facts = `grep -E "Sig(Blk|Ign|Cgt)" /proc/self/status; ulimit -a; umask`
	plain, err := exec.Command("/bin/sh", "-c", facts).Output()
	if err != nil {
		t.Fatal(err)
	}
	s := grace(t, "--ready-delay", "1ms", "--", "/bin/sh", "-c", facts+"; echo end; exec sleep 1000")
	s.awaitText("end")
	for _, line := range strings.Split(strings.TrimSpace(string(plain)), "\n") {
		s.awaitText(line)
	}
	s.stop()
}

func TestHintForTheStopSignal(t *testing.T) {
	program := write(t, t.TempDir(), "nginx", "#!/bin/sh\nexec sleep 1000\n", 0o755)
	s := grace(t, "--ready-delay", "1ms", "--", program)
	s.awaitMessage("nginx finishes its requests on QUIT; with TERM it may cut them (use --stop-signal QUIT)")
	s.stop()
	s = grace(t, "--ready-delay", "1ms", "--stop-signal", "QUIT", "--", program)
	s.ready(1)
	for _, e := range s.entries() {
		if strings.Contains(e.Message, "--stop-signal") {
			t.Errorf("needless hint: %s", e.Message)
		}
	}
	s.stop()
}

func TestInstancesAreReplacedOneByOneAndUpgradedTogether(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--instances", "3", "--", appBinary)
	s.ready(1)
	s.crash(1)
	s.await("a replacement", func(e entry) bool { return e.Message == "instance ready" && e.Instance == 4 })
	s.upgrade(2)
	s.awaitOf("generation ended", 1)
	started := 0
	for _, e := range s.entries() {
		if e.Message == "instance ready" && e.Generation == 2 {
			started++
		}
	}
	if started != 3 {
		t.Errorf("generation 2 has %d instances", started)
	}
	s.stop()
}

func TestTextLog(t *testing.T) {
	s := grace(t, "--log-format", "text", "--ready-delay", "1ms", "--", "/bin/true")
	if status := s.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	<-s.drained
	if text := s.output(); strings.ContainsAny(text, "{\x1b") || !strings.Contains(text, "instance started") {
		t.Errorf("got %s", text)
	}
}
