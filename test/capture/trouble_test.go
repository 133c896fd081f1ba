package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

const crashes = 4

// A crash loses what the app had in its hands. Who comes meanwhile waits, and gets
// his answer from the instance that is started again.
func TestCrashOfACapturedAppIsWaitedOut(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	const clients = 4
	web, echo := map[load.Kind]int{load.NewConnection: clients}, map[load.Kind]int{load.Echo: clients}
	for _, test := range []struct {
		name, migrate string
		program       program
		most          int // of requests that may fail at each crash
	}{
		{"static Go", "0", program{command: harness.AppBinary() + " -addr 127.0.0.1:PORT", clients: web}, clients},
		{"static Go", "1", program{command: harness.AppBinary() + " -addr 127.0.0.1:PORT", clients: web}, clients},
		{"C that forks for each connection", "0", program{command: "fork.c PORT", clients: echo}, clients},
		// Its new instance cannot have the old one's socket, and what waits there is reset.
		{"C that calls epoll_ctl before bind", "0", program{command: "epoll.c PORT", clients: echo}, 2 * clients},
		{"C that calls epoll_ctl before bind", "1", program{command: "epoll.c PORT", clients: echo}, clients},
	} {
		t.Run(test.name+", tcp_migrate_req="+test.migrate, func(t *testing.T) {
			setMigration(t, test.migrate)
			test.program.crash(t, crashes*test.most)
		})
	}
}

// dieUnder kills each instance of the app once it has served some clients.
func dieUnder(s *harness.Grace, l *load.Load) {
	s.T.Helper()
	for n := 1; n <= crashes; n++ {
		s.AwaitInstance("instance ready", n)
		awaitSuccesses(s.T, l, 50)
		if err := syscall.Kill(s.AwaitInstance("instance started", n).PID, syscall.SIGKILL); err != nil {
			s.T.Fatal(err)
		}
	}
	s.AwaitInstance("instance ready", crashes+1)
	awaitSuccesses(s.T, l, 50)
}

func (p program) crash(t *testing.T, most int) {
	port := ownPort(t)
	s := harness.Start(t, append([]string{"--"}, compiled(t, p.command, port)...)...)
	s.AwaitReady(1)
	tally := counted(t, load.Config{Addr: "127.0.0.1:" + port, Clients: p.clients}, func(l *load.Load) { dieUnder(s, l) })
	s.Stop()
	if tally.Failures() > uint64(most) {
		t.Errorf("more than %d requests failed: %v, first %v", most, tally.ByFailure(), tally.First)
	}
}

// awaitSuccesses waits until so many more requests were answered.
func awaitSuccesses(t *testing.T, l *load.Load, more uint64) {
	t.Helper()
	successes := func() uint64 {
		tally := l.Snapshot()
		return tally.Requests() - tally.Failures()
	}
	enough := successes() + more
	harness.Until(t, "clients are answered", func() bool { return successes() >= enough })
}

// counted is under for what may lose a request, and must not turn anyone away or
// forget him.
func counted(t *testing.T, cfg load.Config, do func(*load.Load)) load.Tally {
	t.Helper()
	cfg.ThinkMax = 4 * time.Millisecond
	l, err := load.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	do(l)
	tally := l.Stop()
	t.Logf("of %d requests %d failed: %v", tally.Requests(), tally.Failures(), tally.ByFailure())
	for _, never := range []load.Failure{load.Refused, load.Timeout} {
		if n := tally.ByFailure()[never]; n > 0 {
			t.Errorf("%d requests: %s, first %v", n, never, tally.First)
		}
	}
	return tally
}

// A version that dies under load within --settle, with all clients in its queue. The
// old one has the next connection at once. Those in the queue are reset, unless the
// kernel may give them to the old one.
func TestUpgradeIsUndoneUnderLoad(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	const clients = 4
	for migrate, most := range map[string]uint64{"0": crashes * clients, "1": 0} {
		t.Run("tcp_migrate_req="+migrate, func(t *testing.T) {
			setMigration(t, migrate)
			port, dir := ownPort(t), t.TempDir()
			deaf := strings.Join(compiled(t, "deaf.c PORT", port), " ")
			script := fmt.Sprintf("test -e later && exec %s; exec %s -addr 127.0.0.1:%s", deaf, harness.AppBinary(), port)
			s := harness.StartWith(t, func(c *exec.Cmd) { c.Dir = dir }, "--settle", "60s", "--", "sh", "-c", script)
			s.AwaitReady(1)
			harness.Touch(t, filepath.Join(dir, "later"))
			tally := counted(t, load.Config{Addr: "127.0.0.1:" + port, Clients: map[load.Kind]int{load.NewConnection: clients}}, func(l *load.Load) {
				for generation := 2; generation < 2+crashes; generation++ {
					awaitSuccesses(t, l, 50)
					s.Upgrade(generation)
					awaitQueue(t, port, clients)
					if err := syscall.Kill(s.AwaitGeneration("instance ready", generation).PID, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
					s.AwaitGeneration("upgrade undone, generation 1 serves again", generation)
					s.AwaitGeneration("generation ended", generation)
				}
				awaitSuccesses(t, l, 50)
			})
			s.Stop()
			if tally.Failures() > most {
				t.Errorf("%v, first %v", tally.ByFailure(), tally.First)
			}
		})
	}
}

// awaitQueue waits until so many connections wait for a port's listeners.
func awaitQueue(t *testing.T, port string, want int) {
	t.Helper()
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	listening := regexp.MustCompile(fmt.Sprintf(`:%04X 00000000:0000 0A [0-9A-F]{8}:([0-9A-F]{8})`, number))
	harness.Until(t, fmt.Sprintf("%d connections wait", want), func() bool {
		waiting := int64(0)
		for _, match := range listening.FindAllStringSubmatch(harness.Read(t, "/proc/net/tcp"), -1) {
			n, _ := strconv.ParseInt(match[1], 16, 64)
			waiting += n
		}
		return waiting == int64(want)
	})
}

// inOwnNetwork runs the test once more in a network of its own, where kernel
// settings can be changed, and reports whether it runs there already.
func inOwnNetwork(t *testing.T) bool {
	const variable = "GRACE_TEST_OWN_NETWORK"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	t.Parallel()
	runtime.LockOSThread() // for Pdeathsig: a thread ends with the test that was locked to it
	again := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), variable+"="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	text, err := again.CombinedOutput()
	if errnoOf(err) != 0 {
		requirement.Check(t, "netns", err)
	}
	t.Logf("%s", text)
	if err != nil {
		t.Error(err)
	}
	return false
}

func errnoOf(err error) (errno syscall.Errno) {
	_ = errors.As(err, &errno)
	return errno
}

func setMigration(t *testing.T, value string) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_migrate_req", []byte(value), 0); err != nil {
		t.Skip(err) // it came with Linux 5.14
	}
}

// A new version that listens where the old one does not cannot take its place.
func TestNewVersionOnAnotherAddressIsRefused(t *testing.T) {
	for name, later := range map[string]string{
		"port":   "fork.c OTHER",
		"family": "others.c PORT",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, other, dir := ownPort(t), ownPort(t), t.TempDir()
			before := strings.Join(compiled(t, "fork.c PORT", port), " ")
			after := strings.Join(compiled(t, strings.ReplaceAll(later, "OTHER", other), port), " ")
			script := fmt.Sprintf("test -e later && exec %s; exec %s", after, before)
			s := harness.StartWith(t, func(c *exec.Cmd) { c.Dir = dir }, "--ready-timeout", "6s", "--", "sh", "-c", script)
			s.AwaitReady(1)
			harness.Touch(t, filepath.Join(dir, "later"))
			harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() {
				s.Signal(syscall.SIGHUP)
				e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
				pattern := `no process of the app waits for connections on 127\.0\.0\.1:` + port + `, but one waits on (\[::\]|127\.0\.0\.1):\d+, where generation 1 has no socket`
				if !regexp.MustCompile(pattern).MatchString(e.Why) {
					t.Errorf("the reason is %q", e.Why)
				}
				s.AwaitGeneration("generation ended", 2)
			})
			s.Stop()
		})
	}
}

// The kernel prefers a socket of one address to one of all, so a version that
// changes to that would have clients before it is ready, and lose them.
func TestNewVersionTakesNoClientsBeforeItsTime(t *testing.T) {
	t.Parallel()
	port, dir := ownPort(t), t.TempDir()
	before, after := strings.Join(compiled(t, "others.c PORT", port), " "), strings.Join(compiled(t, "fork.c PORT", port), " ")
	script := fmt.Sprintf("test -e later && exec %s; exec %s", after, before)
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Dir = dir }, "--", "sh", "-c", script)
	s.AwaitReady(1)
	harness.Touch(t, filepath.Join(dir, "later"))
	harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() {
		s.Signal(syscall.SIGHUP)
		want := "127.0.0.1:" + port + ": its socket would take the clients of generation 1 on [::]:" + port + " (IPv4 too) before the new generation is ready"
		if e := s.AwaitMessage("the app binds an address that is in use"); !strings.Contains(e.Why, want) {
			t.Errorf("the reason is %q", e.Why)
		}
		s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
		s.AwaitGeneration("generation ended", 2)
	})
	s.Stop()
}

// UDP is not captured, so a second generation cannot bind what the first one has: the reason has to say that.
func TestUDPSocketOfTheOldVersionIsNamed(t *testing.T) {
	harness.Need(t, "python3")
	t.Parallel()
	port := ownPort(t)
	script := `import socket
server = socket.create_server(("127.0.0.1", PORT))
packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
packets.bind(("127.0.0.1", PORT))
while True: server.accept()`
	s := harness.Start(t, "--", "python3", "-c", strings.ReplaceAll(script, "PORT", port))
	app := s.AwaitInstance("instance ready", 1).PID
	s.Signal(syscall.SIGHUP)
	e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
	want := fmt.Sprintf("address already in use by pid %d of ", app)
	if !strings.Contains(e.Why, want) || !strings.Contains(e.Why, "use --listen udp://127.0.0.1:"+port) {
		t.Errorf("the reason is %q", e.Why)
	}
	s.AwaitGeneration("generation ended", 2)
	s.Stop()
}

// An address that the app itself has left binds nobody.
func TestNewVersionNeedNotListenWhereTheOldOneHasStopped(t *testing.T) {
	t.Parallel()
	port := ownPort(t)
	s := harness.Start(t, append([]string{"--settle", "50ms", "--"}, compiled(t, "node leave.js PORT "+ownPort(t), port)...)...)
	s.AwaitReady(1)
	s.Signal(syscall.SIGUSR1)
	s.AwaitLine("closed")
	harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() { s.Upgrade(2) })
	s.Stop()
}

// Without grace, who comes meanwhile is refused, and who waits is reset.
func TestRebindLosesNobody(t *testing.T) {
	t.Parallel()
	port := ownPort(t)
	s := harness.Start(t, append([]string{"--settle", "10s", "--"}, compiled(t, "rebind.c PORT", port)...)...)
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() {
		rebind(s, 1)
		s.Upgrade(2)
		rebind(s, 2)
	})
	s.Stop()
}

// Without grace an app goes on with what it has, and gets nothing new.
func TestKilledGraceLeavesItsAppServing(t *testing.T) {
	port := ownPort(t)
	inPlace := func(c *exec.Cmd) { c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+harness.WorldFolder(t)) } // it leaves its sockets behind
	s := harness.StartWith(t, inPlace, append([]string{"--"}, compiled(t, "late.c PORT "+ownPort(t), port)...)...)
	s.AwaitReady(1)
	app := s.AwaitInstance("instance ready", 1).PID
	t.Cleanup(func() { _ = syscall.Kill(app, syscall.SIGKILL) })
	harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() {
		for _, want := range []string{"late bind: 0, late listen: 0", "late bind: ENOSYS, late listen: ENOSYS"} {
			if err := syscall.Kill(app, syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			s.AwaitLine(want)
			if s.Cmd.ProcessState == nil {
				s.Signal(syscall.SIGKILL)
				s.Wait()
			}
		}
	})
}

func TestSecondBindFailsAsItDoesWithoutGrace(t *testing.T) {
	t.Parallel()
	port := ownPort(t)
	s := harness.Start(t, append([]string{"--"}, compiled(t, "twice.c PORT", port)...)...)
	const want = "second bind: plain EADDRINUSE, reuseaddr EADDRINUSE, reuseport EADDRINUSE, 0.0.0.0 EADDRINUSE, [::] EADDRINUSE, other address 0"
	s.AwaitLine(want)
	s.AwaitReady(1)
	s.Upgrade(2)
	s.Stop()
	<-s.Ended
	if said := strings.Count(s.Output(), want); said != 2 {
		t.Errorf("%d of 2 generations found what there is without grace", said)
	}
}

// Where the app cannot be captured it runs, and no upgrade is tried; --capture on
// is a demand.
func TestAppThatCannotBeCaptured(t *testing.T) {
	for name, test := range map[string]struct {
		UnderLoad []string // what grace is run by
		why       string
	}{
		"no seccomp":     {compiled(t, "deny.c seccomp", ""), "seccomp: function not implemented"},
		"grace in grace": {[]string{harness.GraceBinary(), "run", "--log-format", "json", "--"}, "grace cannot capture inside another grace process"},
	} {
		outer := func(c *exec.Cmd) {
			c.Path, c.Args = test.UnderLoad[0], append(test.UnderLoad, append([]string{harness.GraceBinary()}, c.Args[1:]...)...)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := ownPort(t)
			s := harness.StartWith(t, outer, append([]string{"--"}, compiled(t, "fork.c PORT", port)...)...)
			if e := s.AwaitMessage("cannot capture the app's sockets, so there can be no upgrade"); !strings.Contains(e.Why, test.why) {
				t.Errorf("the reason is %q", e.Why)
			}
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() {
				s.AwaitInstance("instance ready", 1)
			})
			s.Stop()
		})
		t.Run(name+", --capture on", func(t *testing.T) {
			t.Parallel()
			s := harness.StartWith(t, outer, append([]string{"--capture", "on", "--"}, compiled(t, "fork.c PORT", ownPort(t))...)...)
			if e := s.AwaitMessage("first generation failed"); !strings.Contains(e.Why, test.why) {
				t.Errorf("the reason is %q", e.Why)
			}
		})
	}
}

// What an app has besides its addresses, and which families it wants, cannot be seen
// where grace gives it sockets of its own.
func TestSocketsOfGracesOwn(t *testing.T) {
	web := map[load.Kind]int{load.NewConnection: 4}
	for _, test := range []program{
		{command: "others.c PORT", hosts: []string{"127.0.0.1", "::1"}, clients: echoClients},
		{command: "node families.js PORT", hosts: []string{"127.0.0.1", "::1"}, clients: web},
	} {
		t.Run(test.command, func(t *testing.T) {
			t.Parallel()
			port, deny := ownPort(t), compiled(t, "deny.c pidfd_getfd", "")
			s := harness.StartWith(t, func(c *exec.Cmd) {
				c.Path, c.Args = deny[0], append(deny, append([]string{harness.GraceBinary()}, c.Args[1:]...)...)
			}, append([]string{"--settle", "50ms", "--"}, compiled(t, test.command, port)...)...)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: net.JoinHostPort(test.hosts[0], port), Clients: test.clients}, func() {
				harness.UnderLoad(t, load.Config{Addr: net.JoinHostPort(test.hosts[1], port), Clients: test.clients}, func() { s.Upgrade(2) })
			})
			if !s.Said("capturing with grace's own sockets") {
				t.Error("grace has not captured with sockets of its own")
			}
			s.Stop()
		})
	}
}

// A daemon leaves grace's sight unless it says where it went.
func TestDaemonHasToSayWhereItWent(t *testing.T) {
	command := compiled(t, "fork.c PORT -d", ownPort(t))
	t.Cleanup(func() { endAll(t, command[0]) })
	s := harness.Start(t, append([]string{"--"}, command...)...)
	if e := s.AwaitMessage("first generation failed"); !strings.Contains(e.Why, "stay in the foreground") {
		t.Errorf("the reason is %q", e.Why)
	}
	s.Wait()
}

// endAll ends what runs the program, and has left everybody's sight.
func endAll(t *testing.T, program string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != program {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// A generation that finishes its requests listens still, on a socket that grace has captured.
func TestFailureIsNotBlamedOnAGenerationThatFinishes(t *testing.T) {
	t.Parallel()
	addr, later := freeport.Address(t), filepath.Join(t.TempDir(), "later")
	script := fmt.Sprintf("test -e %s && exit 3; exec %s -addr %s", later, harness.AppBinary(), addr)
	s := harness.Start(t, "--settle", "50ms", "--", "sh", "-c", script)
	s.AwaitReady(1)
	slow, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "GET /slow?for=1m HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.Upgrade(2)
	s.AwaitGeneration("generation draining", 1)
	harness.Touch(t, later)
	s.Signal(syscall.SIGHUP)
	if e := s.AwaitGeneration("upgrade failed, generation 2 still serves", 3); e.Why != "instance ended: exit status 3" {
		t.Errorf("the reason is %q", e.Why)
	}
	slow.Close()
	s.AwaitGeneration("generation ended", 1)
	s.Stop()
}
