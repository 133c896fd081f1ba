//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"golang.org/x/sys/unix"
)

// dynasty is a grace that is replaced by others.
type dynasty struct {
	*supervised
	program string    // where the next one is found
	reigns  int       // how often another has taken over
	told    *sync.Map // what the service manager was told, by line; nil without one
}

// waysToReexec are by what grace finds around it: a service manager that follows MAINPID=, or nobody who does.
var waysToReexec = []string{"another process", "the same process"}

func found(t *testing.T, way string, arguments ...string) *dynasty {
	t.Helper()
	d := &dynasty{program: filepath.Join(t.TempDir(), "grace")}
	if err := os.Link(graceBinary, d.program); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if way == "another process" {
		path := filepath.Join(t.TempDir(), "notify")
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		d.told = &sync.Map{}
		go d.listen(conn)
		env = append(env, "NOTIFY_SOCKET="+path)
	}
	d.supervised = graceWith(t, func(c *exec.Cmd) { c.Path, c.Args[0], c.Env = d.program, d.program, env }, arguments...)
	t.Cleanup(func() { d.send(syscall.SIGQUIT) })
	d.ready(1)
	return d
}

func (d *dynasty) listen(conn *net.UnixConn) {
	for text := make([]byte, 4096); ; {
		n, err := conn.Read(text)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(text[:n])) {
			d.told.Store(strings.TrimSpace(line), true)
		}
	}
}

// pid is of the grace that reigns.
func (d *dynasty) pid() int {
	pid := d.cmd.Process.Pid
	for _, e := range d.entries() {
		if e.Message == "taken over" {
			pid = e.PID
		}
	}
	return pid
}

func (d *dynasty) send(sig syscall.Signal) error { return unix.Kill(d.pid(), sig) }

func (d *dynasty) order(sig syscall.Signal) {
	d.t.Helper()
	if err := d.send(sig); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dynasty) reexec() {
	d.t.Helper()
	d.order(syscall.SIGUSR2)
	d.reigns++
	d.awaitNth("taken over", d.reigns)
}

func (d *dynasty) awaitNth(message string, n int) entry {
	d.t.Helper()
	seen := 0
	return d.await(fmt.Sprintf("%s, for the %d. time", message, n), func(e entry) bool {
		if e.Message == message {
			seen++
		}
		return e.Message == message && seen == n
	})
}

func (d *dynasty) upgrade(generation int) {
	d.t.Helper()
	d.order(syscall.SIGHUP)
	d.awaitOf("upgraded", generation)
}

// end stops the last of them, and sees that it leaves nothing.
func (d *dynasty) end() {
	d.t.Helper()
	last := d.current()
	d.order(syscall.SIGTERM)
	last.awaitEnd()
	d.wait()
	d.checkNothingLeft()
}

// reign is of one process.
type reign struct {
	t     *testing.T
	pidfd int
}

func (d *dynasty) current() reign {
	d.t.Helper()
	pidfd, err := unix.PidfdOpen(d.pid(), 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { unix.Close(pidfd) })
	return reign{d.t, pidfd}
}

func (r reign) awaitEnd() {
	r.t.Helper()
	until(r.t, "the grace has ended", func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(r.pidfd), Events: unix.POLLIN}}, 0)
		return n == 1
	})
}

func (d *dynasty) count(message string) int {
	n := 0
	for _, e := range d.entries() {
		if strings.HasPrefix(e.Message, message) {
			n++
		}
	}
	return n
}

const reexecsEach = 10

func TestReexecLosesNothing(t *testing.T) {
	for _, way := range waysToReexec {
		for _, captured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, captured %v", way, captured), func(t *testing.T) {
				addr := freeport.Address(t)
				arguments := []string{"--listen", "web=" + addr, "--", appBinary}
				if captured {
					arguments = []string{"--settle", "50ms", "--", appBinary, "-addr", addr}
				}
				d := found(t, way, arguments...)
				fresh := surroundings(t, d.awaitMessage("instance ready").PID)
				under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
					for range reexecsEach {
						d.reexec()
					}
				})
				if n := d.count("instance started"); n != 1 {
					t.Errorf("%d instances were started", n)
				}
				under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
					for g := 2; g <= 4; g++ {
						d.upgrade(g)
						d.reexec()
					}
				})
				if later := surroundings(t, d.awaitNth("instance ready", 4).PID); later != fresh {
					t.Errorf("an app was started with\n%s\nand after reexecs with\n%s", fresh, later)
				}
				d.checkFollowed()
				d.end()
			})
		}
	}
}

// surroundings are what an app is born with: its descriptors and its variables, without what is every instance's own.
func surroundings(t *testing.T, pid int) string {
	t.Helper()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"GRACE_GENERATION=", "LISTEN_PID=", "NOTIFY_SOCKET=", "SERVER_STARTER_GENERATION="}
	variables := slices.DeleteFunc(strings.Split(string(env), "\x00"), func(v string) bool {
		return slices.ContainsFunc(own, func(name string) bool { return strings.HasPrefix(v, name) })
	})
	slices.Sort(variables)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "SigIgn") { // what is blocked differs among the threads of a Go program
			variables = append(variables, line)
		}
	}
	return strings.Join(variables, "\n") + strings.Join(inherited(t, pid), "\n")
}

// inherited are the descriptors that are no epoll set, event or connection of the app's own.
func inherited(t *testing.T, pid int) []string {
	t.Helper()
	var list []string
	for fd := range 32 {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil || strings.HasPrefix(link, "anon_inode:") {
			continue
		}
		kind, _, _ := strings.Cut(link, "[")
		if kind == "socket:" && fd > 3 {
			continue
		}
		list = append(list, fmt.Sprint(fd, " ", kind))
	}
	return list
}

// checkFollowed: a service manager has to hear of each grace from the one before.
func (d *dynasty) checkFollowed() {
	d.t.Helper()
	if d.told == nil {
		if d.pid() != d.cmd.Process.Pid {
			d.t.Errorf("grace had pid %d, and has %d", d.cmd.Process.Pid, d.pid())
		}
		return
	}
	for _, e := range d.entries() {
		if e.Message != "taken over" {
			continue
		}
		until(d.t, fmt.Sprintf("the grace before says that %d is grace now", e.PID), func() bool {
			_, said := d.told.Load(fmt.Sprintf("MAINPID=%d", e.PID))
			return said
		})
	}
}

func TestBrokenSuccessorCostsNothing(t *testing.T) {
	script := func(text string) func(string) error {
		return func(path string) error { return writeFile(path, "#!/bin/sh\n"+text+"\n", 0o755) }
	}
	for name, test := range map[string]struct {
		install func(path string) error
		why     string
	}{
		"missing":      {func(string) error { return nil }, "no such file"},
		"garbage":      {func(path string) error { return writeFile(path, "\x7fELF garbage", 0o755) }, "exec format error"},
		"crashes":      {script("exit 3"), "3"},
		"killed":       {script("kill -9 $$"), ""},
		"is no grace":  {script("exit 0"), "ed"},
		"hangs":        {script("exec sleep 1000"), ""},
		"not for it":   {func(path string) error { return os.WriteFile(path, nil, 0o644) }, "permission denied"},
		"cannot begin": {script(`exec ` + graceBinary + ` run --no-such-flag`), "2"},
	} {
		for _, way := range waysToReexec {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				addr := freeport.Address(t)
				d := found(t, way, "--listen", "web="+addr, "--", appBinary)
				if err := os.Remove(d.program); err != nil {
					t.Fatal(err)
				}
				if err := test.install(d.program); err != nil {
					t.Fatal(err)
				}
				under(t, load.Config{Addr: addr, Clients: impatient}, func() {
					d.order(syscall.SIGUSR2)
					e := d.awaitMessage("reexec failed, this grace goes on")
					if !strings.Contains(e.Why, test.why) {
						t.Errorf("it failed because %s", e.Why)
					}
					d.upgrade(2)
				})
				d.replaceProgram()
				d.reexec()
				d.end()
			})
		}
	}
}

func (d *dynasty) replaceProgram() {
	d.t.Helper()
	_ = os.Remove(d.program) // it may be missing
	if err := os.Link(graceBinary, d.program); err != nil {
		d.t.Fatal(err)
	}
}

// An app that ends after the handover is seen to end, and started again. How a process ended that is not one's child the
// kernel tells from Linux 6.15 on, when it was reaped: that is up to the machine's init, which can take its time.
func TestSuccessorFollowsTheApp(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := found(t, way, "--listen", "web=127.0.0.1:0", "--", appBinary)
			app := d.awaitMessage("instance started").PID
			d.reexec()
			if err := unix.Kill(app, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if e := d.awaitMessage("instance ended"); e.Why != "signal: killed" && (e.Why != "status unknown" || way == "the same process") {
				t.Errorf("the app has ended by %s", e.Why)
			}
			d.awaitNth("instance ready", 2)
			d.end()
		})
	}
}

// What the app says and binds between two graces, and after, counts.
func TestSuccessorHearsTheApp(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := found(t, way, "--listen", "web=127.0.0.1:0", "--watchdog", "2s", "--", appBinary, "-watchdog")
			addr := d.address("web")
			for range 3 {
				d.reexec()
			}
			ask(t, addr, "/hang")
			d.awaitMessage("watchdog: no sign of life")
			d.awaitNth("instance ready", 2)
			d.end()
		})
	}
}

// opensLater listens at its first port, and at the second one when it gets USR1.
const opensLater = `
import select, signal, socket, sys
sockets = []
def listen(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", int(port)))
    s.listen(8)
    sockets.append(s)
listen(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: listen(sys.argv[2]))
while True:
    for s in select.select(sockets, [], [], 0.05)[0]:
        client, _ = s.accept()
        client.sendall(b"hello")
        client.close()
`

func TestSuccessorCapturesWhatTheAppOpensLater(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			first, second := freeport.Address(t), freeport.Address(t)
			port := func(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }
			d := found(t, way, "--settle", "50ms", "--", "python3", "-c", opensLater, port(first), port(second))
			d.reexec()
			d.order(syscall.SIGUSR1)
			until(t, "the second port is open", func() bool {
				conn, err := net.Dial("tcp", second)
				if err != nil {
					return false
				}
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				return string(text) == "hello"
			})
			d.order(syscall.SIGHUP) // the next generation opens the first one only
			e := d.await("a reason", func(e entry) bool { return e.Generation == 2 && e.Message == "not ready yet" })
			if !strings.Contains(e.Why, second) {
				t.Errorf("the second port was not captured: %s", e.Why)
			}
			d.order(syscall.SIGTERM)
			d.awaitOf("generation ended", 1)
		})
	}
}

func TestPidFileAndPathsAreTheSuccessors(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := found(t, way, "--listen", "web=unix://"+dir+"/s", "--pid-file", dir+"/pid", "--", appBinary)
			d.reexec()
			text, err := os.ReadFile(dir + "/pid")
			if err != nil || strings.TrimSpace(string(text)) != fmt.Sprint(d.pid()) {
				t.Errorf("the pid file has %q, %v; not %d", text, err, d.pid())
			}
			conn, err := net.Dial("unix", dir+"/s")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
			if answer, err := io.ReadAll(conn); !strings.Contains(string(answer), "200 OK") {
				t.Errorf("%s, %v", answer, err)
			}
			conn.Close()
			d.end()
			if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// Who asks by the control socket is answered by the old grace, and finds the new one at the same place.
func TestReexecByCommand(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			name := "reexec-" + strings.ToLower(rand.Text())
			d := found(t, way, "--name", name, "--listen", "web=127.0.0.1:0", "--metrics", "127.0.0.1:0", "--", appBinary)
			exporter := d.awaitMessage("serving metrics").Address
			for range 3 {
				before := d.current()
				out, err := exec.Command(d.program, "reexec", name).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "another grace has taken over") {
					t.Fatalf("%s, %v", out, err)
				}
				d.reigns++
				d.awaitNth("taken over", d.reigns)
				if way == "another process" { // until it ends, the old one may be asked as well
					before.awaitEnd()
				}
				out, err = exec.Command(d.program, "status", "--json", name).CombinedOutput()
				if err != nil || !strings.Contains(string(out), fmt.Sprintf(`"pid":%d,`, d.pid())) {
					t.Fatalf("%s, %v; not %d", out, err, d.pid())
				}
				if body := ask(t, exporter, "/metrics"); !strings.Contains(body, "grace_") {
					t.Fatalf("%s", body)
				}
			}
			if err := os.Remove(d.program); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(graceBinary, "reexec", name).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "no such file") {
				t.Fatalf("%s, %v", out, err)
			}
			out, err = exec.Command(graceBinary, "upgrade", name).CombinedOutput()
			if err != nil {
				t.Fatalf("%s, %v", out, err)
			}
			d.end()
		})
	}
}

// A container ends with its PID 1, so that has to stay.
func TestReexecAsPIDOne(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "grace")
	programs, err := staticPrograms()
	if err != nil {
		t.Fatal(err)
	}
	install := func() {
		t.Helper()
		_ = os.Remove(program) // it may be missing
		if err := os.Link(filepath.Join(programs, "grace"), program); err != nil {
			t.Fatal(err)
		}
	}
	install()
	c := contain(t, func(spec config) {
		spec.mount("/programs", "bind", dir, "bind", "ro")
		spec.at("process")["args"].([]string)[0] = "/programs/grace"
	}, "--listen", "web=127.0.0.1:0", "--", "/app")
	d := &dynasty{supervised: c.supervised}
	addr := d.address("web")
	d.ready(1)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		for n := 1; n <= 5; n++ {
			c.do("kill", c.name, "USR2")
			if e := d.awaitNth("taken over", n); e.PID != 1 {
				t.Errorf("grace is process %d", e.PID)
			}
		}
		if err := os.Remove(program); err != nil { // as install(1) does: a program that runs cannot be written to
			t.Fatal(err)
		}
		write(t, dir, "grace", "no program", 0o755)
		c.do("kill", c.name, "USR2")
		if e := d.awaitMessage("reexec failed, this grace goes on"); !strings.Contains(e.Why, "exec format error") {
			t.Errorf("it failed because %s", e.Why)
		}
		install()
		c.do("kill", c.name, "HUP")
		d.awaitOf("upgraded", 2)
		c.do("kill", c.name, "USR2")
		d.awaitNth("taken over", 6)
	})
	if n := d.count("instance started"); n != 2 {
		t.Errorf("%d instances were started", n)
	}
	c.do("kill", c.name, "TERM")
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// A program that hangs holds up no deadline, and what it has started does not outlive it.
func TestHangingSuccessorHoldsNothingUp(t *testing.T) {
	for i, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			sleep := strconv.Itoa(4720 + i)
			d := found(t, way, "--listen", "web=127.0.0.1:0", "--drain-timeout", "3s", "--", appBinary, "-ignore-term")
			d.upgrade(2)
			if err := os.Remove(d.program); err != nil {
				t.Fatal(err)
			}
			if err := writeFile(d.program, "#!/bin/sh\nsetsid sleep "+sleep+" &\nwait\n", 0o755); err != nil {
				t.Fatal(err)
			}
			d.order(syscall.SIGUSR2)
			d.awaitOf("generation ended", 1)
			if d.said("reexec failed") {
				t.Error("the old generation has ended after the program was given up")
			}
			d.awaitMessage("reexec failed, this grace goes on")
			if d.said("killed, but still there") {
				t.Error("what has ended is said to be there")
			}
			until(t, "what the program has started is gone", func() bool { return len(running(t, "sleep\x00"+sleep+"\x00")) == 0 })
			d.signal(syscall.SIGQUIT)
			d.wait()
		})
	}
}
