//go:build linux

package main

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
)

// queued is a client that has sent its request before anybody accepts.
type queued struct{ net.Conn }

func queue(t *testing.T, network, addr string, clients int) (all []queued) {
	t.Helper()
	for range clients {
		conn, err := net.DialTimeout(network, addr, patience)
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
	if err := q.SetReadDeadline(time.Now().Add(patience)); err != nil {
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
	need(t, "python3")
	for _, instances := range []string{"1", "3"} {
		for name, start := range map[string]func(t *testing.T, dir string) (s *supervised, network, addr string){
			"captured": func(t *testing.T, dir string) (*supervised, string, string) {
				addr := freeport.Address(t)
				host, port, _ := net.SplitHostPort(addr)
				command := mends(appBinary+" -addr "+addr, listens("AF_INET", fmt.Sprintf("('%s',%s)", host, port)))
				return grace(t, append([]string{"--chdir", dir, "--settle", "50ms", "--instances", instances}, command...)...), "tcp", addr
			},
			"steered": func(t *testing.T, dir string) (*supervised, string, string) {
				flags := []string{"--chdir", dir, "--settle", "50ms", "--instances", instances, "--listen", "web=127.0.0.1:0?steer=true"}
				s := grace(t, append(flags, mends(appBinary, "true")...)...)
				return s, "tcp", s.address("web")
			},
			"unix": func(t *testing.T, dir string) (*supervised, string, string) {
				path := filepath.Join(dir, "socket")
				command := mends(appBinary+strings.ReplaceAll(pathServer, "PATH", path), listens("AF_UNIX", "'"+path+"'"))
				flags := []string{"--chdir", dir, "--settle", "50ms", "--instances", instances, "--capture-unix", path}
				return grace(t, append(flags, command...)...), "unix", path
			},
		} {
			if name == "unix" && instances != "1" {
				continue // a path leads to one process
			}
			t.Run(name+", instances "+instances, func(t *testing.T) {
				t.Parallel()
				dir := worldFolder(t)
				s, network, addr := start(t, dir)
				s.ready(1)
				touch(t, filepath.Join(dir, "crash"))
				for _, e := range s.entries() {
					if e.Message == "instance started" {
						if err := syscall.Kill(e.PID, syscall.SIGKILL); err != nil {
							t.Fatal(err)
						}
					}
				}
				awaitCrashed(s, instances)
				clients := queue(t, network, addr, 10)
				s.signal(syscall.SIGHUP)
				s.awaitOf("upgrade failed, generation 1 still serves", 2)
				s.awaitOf("generation ended", 2)
				clients = append(clients, queue(t, network, addr, 10)...)
				s.upgrade(3)
				checkAllAnswered(t, clients)
				s.stop()
			})
		}
	}
}

// crashedBeside is grace with two generations: the first serves, and can be started again when there is no file crash;
// the second has opened sockets of its own, and is ready as soon as there is a file serve.
type crashedBeside struct {
	*supervised
	dir, network, addr string
	old                []int // the first generation's processes
}

func bringBeside(t *testing.T, kind string, instances int) *crashedBeside {
	program, err := filepath.Abs("testdata/servers/blunt.py")
	if err != nil {
		t.Fatal(err)
	}
	c := &crashedBeside{dir: worldFolder(t), network: "tcp"}
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
	c.supervised = grace(t, append(flags, "--", "sh", "-c", script)...)
	if kind == "steered" {
		c.addr = c.address("web")
	}
	c.ready(1)
	for _, e := range c.entries() {
		if e.Message == "instance started" {
			c.old = append(c.old, e.PID)
		}
	}
	c.signal(syscall.SIGHUP)
	for n := range instances {
		name := fmt.Sprintf("opened.%d", n)
		until(t, name+" is there", func() bool {
			_, err := os.Stat(filepath.Join(c.dir, name))
			return err == nil
		})
	}
	return c
}

// freeze returns when the old generation accepts nothing any more: a process that is told to stop while it waits in
// accept can take one more.
func (c *crashedBeside) freeze() {
	c.t.Helper()
	c.tell(syscall.SIGSTOP, c.old...)
	for _, pid := range c.old {
		stat := filepath.Join("/proc", fmt.Sprint(pid), "stat")
		until(c.t, "the app is stopped", func() bool { return strings.Contains(read(c.t, stat), ") T ") })
	}
}

func (c *crashedBeside) tell(sig syscall.Signal, pids ...int) {
	c.t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			c.t.Fatal(err)
		}
	}
}

// kill returns when grace knows.
func (c *crashedBeside) kill(pids ...int) {
	c.t.Helper()
	c.tell(syscall.SIGKILL, pids...)
	for _, pid := range pids {
		c.await("instance ended", func(e entry) bool { return e.Message == "instance ended" && e.PID == pid })
	}
}

// promote has the second generation serve, before the first one can be started again.
func (c *crashedBeside) promote() {
	c.t.Helper()
	touch(c.t, filepath.Join(c.dir, "serve"))
	c.ready(2)
	if err := os.RemoveAll(filepath.Join(c.dir, "crash")); err != nil {
		c.t.Fatal(err)
	}
}

// Who has come to the old generation is answered by it, when it crashes while the new one has its sockets already too.
func TestWhoWaitsForTheCrashedOldGenerationIsAnswered(t *testing.T) {
	need(t, "python3")
	for name, scenario := range map[string]struct {
		instances int
		crash     func(c *crashedBeside) []queued
	}{
		"before the cutover": {1, crashBefore},
		"all of two":         {2, crashBefore},
		"one of two": {2, func(c *crashedBeside) []queued {
			c.freeze()
			clients := queue(c.t, c.network, c.addr, 20)
			touch(c.t, filepath.Join(c.dir, "crash"))
			c.kill(c.old[0])
			c.tell(syscall.SIGCONT, c.old[1])
			c.promote()
			return clients
		}},
		"after the cutover": {1, func(c *crashedBeside) []queued {
			c.freeze()
			clients := queue(c.t, c.network, c.addr, 10)
			c.promote()
			c.kill(c.old...)
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
				c.awaitOf("generation ended", 1)
				c.stop()
			})
		}
	}
}

func crashBefore(c *crashedBeside) []queued {
	touch(c.t, filepath.Join(c.dir, "crash"))
	c.kill(c.old...)
	clients := queue(c.t, c.network, c.addr, 10)
	c.promote()
	return clients
}

// awaitCrashed waits until no instance of the first start is left.
func awaitCrashed(s *supervised, instances string) {
	s.t.Helper()
	ended := 0
	s.await("restarting", func(e entry) bool {
		if e.Message == "restarting" {
			ended++
		}
		return fmt.Sprint(ended) == instances
	})
}

// An app may shut its listener down, and bind the same address again.
func TestAppBindsAgainAfterShutdown(t *testing.T) {
	for user, as := range users {
		for _, way := range []string{"shutdown", "keep"} {
			t.Run(way+", "+user, func(t *testing.T) {
				t.Parallel()
				port := ownPort(t)
				arguments := append(append([]string{"--settle", "50ms"}, as.flags...), "--")
				s := graceWith(t, func(c *exec.Cmd) { c.SysProcAttr = as.process }, append(arguments, worldReadable(t, compiled(t, "rebind.c PORT "+way, port))...)...)
				s.ready(1)
				for generation := 1; generation <= 2; generation++ {
					app := s.awaitOf("instance ready", generation).PID
					for n := range 5 {
						if err := syscall.Kill(app, syscall.SIGUSR1); err != nil {
							t.Fatal(err)
						}
						checkEcho(t, "tcp", "127.0.0.1:"+port) // accept has to return once
						s.awaitText(fmt.Sprintf("generation %d bound again: %d", generation, n+1))
					}
					under(t, load.Config{Addr: "127.0.0.1:" + port, Clients: echoClients}, func() { s.upgrade(generation + 1) })
				}
				s.stop()
			})
		}
	}
}

// An app that closes its unix listener and binds again loses nobody.
func TestRebindAtAPathLosesNobody(t *testing.T) {
	t.Parallel()
	dir := worldFolder(t)
	path := filepath.Join(dir, "socket")
	s := grace(t, append([]string{"--capture-unix", path, "--settle", "10s", "--"}, compiled(t, "rebind.c "+path, "")...)...)
	s.ready(1)
	under(t, load.Config{Network: "unix", Addr: path, Clients: echoClients}, func() {
		rebind(s, 1)
		s.upgrade(2)
		rebind(s, 2)
	})
	s.stop()
	checkNothingBeside(t, path)
}

// rebind has the generation's app close its listener and bind again, many times.
func rebind(s *supervised, generation int) {
	s.t.Helper()
	app := s.instance("instance ready", generation).PID
	for n := range 20 {
		if err := syscall.Kill(app, syscall.SIGUSR1); err != nil {
			s.t.Fatal(err)
		}
		s.awaitText(fmt.Sprintf("generation %d bound again: %d", generation, n+1))
	}
}

func checkEcho(t *testing.T, network, addr string) {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 4)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
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
	dir := worldFolder(t)
	program := filepath.Join(dir, filepath.Base(command[0]))
	text, err := os.ReadFile(command[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return append([]string{program}, command[1:]...)
}
