package capture

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// queued is a client that has sent its request before anybody accepts.
type queued struct{ net.Conn }

func queue(t *testing.T, network, addr string, clients int) (all []queued) {
	t.Helper()
	for range clients {
		conn, err := net.DialTimeout(network, addr, harness.Patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		all = append(all, queued{conn})
	}
	return all
}

func (q queued) answer() error {
	if err := q.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	text, err := io.ReadAll(q)
	if err == nil && !strings.HasPrefix(string(text), "HTTP/1.1 200 ") {
		err = fmt.Errorf("the answer is %q", text)
	}
	return err
}

func checkAllAnswered(t *testing.T, clients []queued) {
	t.Helper()
	failed := 0
	var first error
	for _, q := range clients {
		if err := q.answer(); err != nil {
			failed, first = failed+1, err
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d clients were not answered: %v", failed, len(clients), first)
	}
}

// mends is a command of which generation 1 cannot be started again once the file crash is there, generation 2 dies
// when it has taken its sockets, and later ones work.
func mends(app, broken string) []string {
	script := `case $GRACE_GENERATION in 1) test -e crash && exit 3;; 2) %s; exit 3;; esac; exec %s`
	return []string{"--", "sh", "-c", fmt.Sprintf(script, broken, app)}
}

// listens is a program that binds, listens and dies.
func listens(family, at string) string {
	return fmt.Sprintf(`python3 -c "import os,socket
s=socket.socket(socket.%s)
s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.bind(%s)
s.listen()
os._exit(3)"`, family, at)
}

// Who waits while a crashed app is to be started again is answered by the upgrade that mends it, and by none that fails.
func TestUpgradeAnswersWhoWaitsForACrashedApp(t *testing.T) {
	harness.Need(t, "python3")
	for _, instances := range []string{"1", "3"} {
		for name, start := range map[string]func(t *testing.T, dir string) (s *harness.Grace, network, addr string){
			"captured": func(t *testing.T, dir string) (*harness.Grace, string, string) {
				addr := freeport.Address(t)
				host, port, _ := net.SplitHostPort(addr)
				command := mends(harness.AppBinary()+" -addr "+addr, listens("AF_INET", fmt.Sprintf("('%s',%s)", host, port)))
				return harness.Start(t, append([]string{"--chdir", dir, "--settle", "50ms", "--instances", instances}, command...)...), "tcp", addr
			},
			"steered": func(t *testing.T, dir string) (*harness.Grace, string, string) {
				flags := []string{"--chdir", dir, "--settle", "50ms", "--instances", instances, "--listen", "web=127.0.0.1:0?steer=true"}
				s := harness.Start(t, append(flags, mends(harness.AppBinary(), "true")...)...)
				return s, "tcp", s.Address("web")
			},
			"unix": func(t *testing.T, dir string) (*harness.Grace, string, string) {
				path := filepath.Join(dir, "socket")
				command := mends(harness.AppBinary()+strings.ReplaceAll(pathServer, "PATH", path), listens("AF_UNIX", "'"+path+"'"))
				flags := []string{"--chdir", dir, "--settle", "50ms", "--instances", instances, "--capture-unix", path}
				return harness.Start(t, append(flags, command...)...), "unix", path
			},
		} {
			if name == "unix" && instances != "1" {
				continue // a path leads to one process
			}
			t.Run(name+", instances "+instances, func(t *testing.T) {
				t.Parallel()
				dir := harness.WorldFolder(t)
				s, network, addr := start(t, dir)
				s.AwaitReady(1)
				harness.Touch(t, filepath.Join(dir, "crash"))
				killInstances(s, startedBy(s)...)
				clients := queue(t, network, addr, 10)
				s.Signal(syscall.SIGHUP)
				s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
				s.AwaitGeneration("generation ended", 2)
				clients = append(clients, queue(t, network, addr, 10)...)
				s.Upgrade(3)
				checkAllAnswered(t, clients)
				s.Stop()
			})
		}
	}
}

// crashedBeside is grace with two generations: the first serves, and can be started again when there is no file crash;
// the second has opened sockets of its own, and is ready as soon as there is a file serve.
type crashedBeside struct {
	*harness.Grace
	dir, network, addr string
	old                []int // the first generation's processes
}

func bringBeside(t *testing.T, kind string, instances int) *crashedBeside {
	program := harness.Testdata(t, "servers/blunt.py")
	c := &crashedBeside{dir: harness.WorldFolder(t), network: "tcp"}
	at, flags := "fd", []string{"--chdir", c.dir, "--settle", "50ms", "--drain-timeout", "10m", "--instances", fmt.Sprint(instances)}
	switch kind {
	case "captured":
		c.addr = freeport.Address(t)
		_, at, _ = net.SplitHostPort(c.addr)
	case "steered":
		flags = append(flags, "--listen", "web=127.0.0.1:0?steer=true")
	case "unix":
		c.network, c.addr = "unix", filepath.Join(c.dir, "socket")
		at, flags = c.addr, append(flags, "--capture-unix", c.addr)
	}
	script := fmt.Sprintf("case $GRACE_GENERATION in 1) test -e crash && exit 3; exec python3 %[1]s %[2]s;; *) exec python3 %[1]s %[2]s serve;; esac", program, at)
	c.Grace = harness.Start(t, append(flags, "--", "sh", "-c", script)...)
	if kind == "steered" {
		c.addr = c.Address("web")
	}
	c.AwaitReady(1)
	c.old = startedBy(c.Grace)
	c.Signal(syscall.SIGHUP)
	for n := range instances {
		name := fmt.Sprintf("opened.%d", n)
		harness.Until(t, name+" is there", func() bool {
			_, err := os.Stat(filepath.Join(c.dir, name))
			return err == nil
		})
	}
	return c
}

// freeze returns when the old generation accepts nothing any more: a process that is told to stop while it waits in
// accept can take one more.
func (c *crashedBeside) freeze() {
	c.T.Helper()
	tell(c.T, syscall.SIGSTOP, c.old...)
	for _, pid := range c.old {
		stat := filepath.Join("/proc", fmt.Sprint(pid), "stat")
		harness.Until(c.T, "the app is stopped", func() bool { return strings.Contains(harness.Read(c.T, stat), ") T ") })
	}
}

func tell(t *testing.T, sig syscall.Signal, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
}

// startedBy gives the instances that grace has started so far.
func startedBy(s *harness.Grace) (pids []int) {
	for _, e := range s.Entries() {
		if e.Message == "instance started" {
			pids = append(pids, e.PID)
		}
	}
	return pids
}

// killInstances returns when grace knows.
func killInstances(s *harness.Grace, pids ...int) {
	s.T.Helper()
	tell(s.T, syscall.SIGKILL, pids...)
	for _, pid := range pids {
		s.Await("instance ended", func(e harness.Entry) bool { return e.Message == "instance ended" && e.PID == pid })
	}
}

// promote has the second generation serve, before the first one can be started again.
func (c *crashedBeside) promote() {
	c.T.Helper()
	harness.Touch(c.T, filepath.Join(c.dir, "serve"))
	c.AwaitReady(2)
	if err := os.RemoveAll(filepath.Join(c.dir, "crash")); err != nil {
		c.T.Fatal(err)
	}
}

// Who has come to the old generation is answered by it, when it crashes while the new one has its sockets already too.
func TestWhoWaitsForTheCrashedOldGenerationIsAnswered(t *testing.T) {
	harness.Need(t, "python3")
	for name, scenario := range map[string]struct {
		instances int
		crash     func(c *crashedBeside) []queued
	}{
		"before the cutover": {1, crashBefore},
		"all of two":         {2, crashBefore},
		"one of two": {2, func(c *crashedBeside) []queued {
			c.freeze()
			clients := queue(c.T, c.network, c.addr, 20)
			harness.Touch(c.T, filepath.Join(c.dir, "crash"))
			killInstances(c.Grace, c.old[0])
			tell(c.T, syscall.SIGCONT, c.old[1])
			c.promote()
			return clients
		}},
		"after the cutover": {1, func(c *crashedBeside) []queued {
			c.freeze()
			clients := queue(c.T, c.network, c.addr, 10)
			c.promote()
			killInstances(c.Grace, c.old...)
			return clients
		}},
	} {
		for _, kind := range []string{"captured", "steered", "unix"} {
			if kind == "unix" && scenario.instances > 1 {
				continue // a path leads to one process
			}
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				c := bringBeside(t, kind, scenario.instances)
				checkAllAnswered(t, scenario.crash(c))
				c.AwaitGeneration("generation ended", 1)
				c.Stop()
			})
		}
	}
}

func crashBefore(c *crashedBeside) []queued {
	harness.Touch(c.T, filepath.Join(c.dir, "crash"))
	killInstances(c.Grace, c.old...)
	clients := queue(c.T, c.network, c.addr, 10)
	c.promote()
	return clients
}

// An app may shut its listener down, and bind the same address again.
func TestAppBindsAgainAfterShutdown(t *testing.T) {
	for user, as := range users {
		for _, way := range []string{"shutdown", "keep"} {
			t.Run(way+", "+user, func(t *testing.T) {
				t.Parallel()
				port := ownPort(t)
				arguments := append(append([]string{"--settle", "50ms"}, as.flags...), "--")
				s := harness.StartWith(t, func(c *exec.Cmd) { c.SysProcAttr = as.process }, append(arguments, worldReadable(t, compiled(t, "rebind.c PORT "+way, port))...)...)
				s.AwaitReady(1)
				for generation := 1; generation <= 2; generation++ {
					app := s.AwaitGeneration("instance ready", generation).PID
					for n := range 5 {
						if err := syscall.Kill(app, syscall.SIGUSR1); err != nil {
							t.Fatal(err)
						}
						checkEcho(t, "tcp", "127.0.0.1:"+port) // accept has to return once
						s.AwaitLine(fmt.Sprintf("generation %d bound again: %d", generation, n+1))
					}
					harness.UnderLoad(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() { s.Upgrade(generation + 1) })
				}
				s.Stop()
			})
		}
	}
}

// An app that closes its unix listener and binds again loses nobody.
func TestRebindAtAPathLosesNobody(t *testing.T) {
	t.Parallel()
	dir := harness.WorldFolder(t)
	path := filepath.Join(dir, "socket")
	s := harness.Start(t, append([]string{"--capture-unix", path, "--settle", "10s", "--"}, compiled(t, "rebind.c "+path, "")...)...)
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: echoClients}, func() {
		rebind(s, 1)
		s.Upgrade(2)
		rebind(s, 2)
	})
	s.Stop()
	checkNothingBeside(t, path)
}

// rebind has the generation's app close its listener and bind again, many times.
func rebind(s *harness.Grace, generation int) {
	s.T.Helper()
	app := s.AwaitInstance("instance ready", generation).PID
	for n := range 20 {
		if err := syscall.Kill(app, syscall.SIGUSR1); err != nil {
			s.T.Fatal(err)
		}
		s.AwaitLine(fmt.Sprintf("generation %d bound again: %d", generation, n+1))
	}
}

func checkEcho(t *testing.T, network, addr string) {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, harness.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 4)
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "ping" {
		t.Fatalf("the answer is %q, %v", answer, err)
	}
}

// worldReadable lets any user run the program.
func worldReadable(t *testing.T, command []string) []string {
	t.Helper()
	dir := harness.WorldFolder(t)
	program := filepath.Join(dir, filepath.Base(command[0]))
	if err := harness.WriteFile(program, harness.Read(t, command[0]), 0o755); err != nil {
		t.Fatal(err)
	}
	return append([]string{program}, command[1:]...)
}
