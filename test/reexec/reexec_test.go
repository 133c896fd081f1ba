package reexec

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

const reexecsEach = 10

func TestReexecLosesNothing(t *testing.T) {
	for _, way := range harness.ReexecWays {
		for _, captured := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, captured %v", way, captured), func(t *testing.T) {
				addr := freeport.Address(t)
				arguments := []string{"--listen", "web=" + addr, "--", harness.AppBinary()}
				if captured {
					arguments = []string{"--settle", "50ms", "--", harness.AppBinary(), "-addr", addr}
				}
				d := harness.StartForReexec(t, way, arguments...)
				fresh := harness.Surroundings(t, d.AwaitMessage("instance ready").PID)
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
					for range reexecsEach {
						d.Reexec()
					}
				})
				if n := d.Count("instance started"); n != 1 {
					t.Errorf("%d instances were started", n)
				}
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
					for g := 2; g <= 4; g++ {
						d.Upgrade(g)
						d.Reexec()
					}
				})
				if later := harness.Surroundings(t, d.AwaitNth("instance ready", 4).PID); later != fresh {
					t.Errorf("an app was started with\n%s\nand after reexecs with\n%s", fresh, later)
				}
				d.CheckFollowed()
				d.End()
			})
		}
	}
}

func TestBrokenSuccessorCostsNothing(t *testing.T) {
	script := func(text string) func(string) error {
		return func(path string) error { return harness.WriteFile(path, "#!/bin/sh\n"+text+"\n", 0o755) }
	}
	for name, test := range map[string]struct {
		install func(path string) error
		why     string
	}{
		"missing":      {func(string) error { return nil }, "no such file"},
		"garbage":      {func(path string) error { return harness.WriteFile(path, "\x7fELF garbage", 0o755) }, "exec format error"},
		"crashes":      {script("exit 3"), "3"},
		"killed":       {script("kill -9 $$"), ""},
		"is no grace":  {script("exit 0"), "ed"},
		"hangs":        {script("exec sleep 1000"), ""},
		"not for it":   {func(path string) error { return os.WriteFile(path, nil, 0o644) }, "permission denied"},
		"cannot begin": {script(`exec ` + harness.GraceBinary() + ` run --no-such-flag`), "2"},
	} {
		for _, way := range harness.ReexecWays {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				addr := freeport.Address(t)
				d := harness.StartForReexec(t, way, "--listen", "web="+addr, "--", harness.AppBinary())
				if err := os.Remove(d.Program); err != nil {
					t.Fatal(err)
				}
				if err := test.install(d.Program); err != nil {
					t.Fatal(err)
				}
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
					d.SignalCurrent(syscall.SIGUSR2)
					e := d.AwaitMessage("reexec failed, this grace process continues")
					if !strings.Contains(e.Why, test.why) {
						t.Errorf("it failed because %s", e.Why)
					}
					d.Upgrade(2)
				})
				d.ReplaceProgram()
				d.Reexec()
				d.End()
			})
		}
	}
}

// An app that ends after the handover is seen to end, and started again. How a process ended that is not one's child the
// kernel tells from Linux 6.15 on, when it was reaped: that is up to the machine's init, which can take its time.
func TestSuccessorFollowsTheApp(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := harness.StartForReexec(t, way, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
			app := d.AwaitMessage("instance started").PID
			d.Reexec()
			if err := unix.Kill(app, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if e := d.AwaitMessage("instance ended"); e.Why != "signal: killed" && (e.Why != "exit status unknown" || way == "the same process") {
				t.Errorf("the app has ended by %s", e.Why)
			}
			d.AwaitNth("instance ready", 2)
			d.End()
		})
	}
}

// What the app says and binds between two grace processes, and after, counts.
func TestSuccessorHearsTheApp(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := harness.StartForReexec(t, way, "--listen", "web=127.0.0.1:0", "--watchdog", "5s", "--", harness.AppBinary(), "-watchdog")
			addr := d.Address("web")
			for range 3 {
				d.Reexec()
			}
			harness.Get(t, addr, "/hang")
			d.AwaitMessage("watchdog: no WATCHDOG=1 in time, killing the instance")
			d.AwaitNth("instance ready", 2)
			d.End()
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
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			first, second := freeport.Address(t), freeport.Address(t)
			port := func(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }
			d := harness.StartForReexec(t, way, "--settle", "50ms", "--", "python3", "-c", opensLater, port(first), port(second))
			d.Reexec()
			d.SignalCurrent(syscall.SIGUSR1)
			harness.Until(t, "the second port is open", func() bool {
				conn, err := net.Dial("tcp", second)
				if err != nil {
					return false
				}
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				return string(text) == "hello"
			})
			d.SignalCurrent(syscall.SIGHUP) // the next generation opens the first one only
			e := d.Await("a reason", func(e harness.Entry) bool { return e.Generation == 2 && e.Message == "not ready yet" })
			if !strings.Contains(e.Why, second) {
				t.Errorf("the second port was not captured: %s", e.Why)
			}
			d.SignalCurrent(syscall.SIGTERM)
			d.AwaitGeneration("generation ended", 1)
		})
	}
}

func TestPidFileAndPathsAreTheSuccessors(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := harness.StartForReexec(t, way, "--listen", "web=unix://"+dir+"/s", "--pid-file", dir+"/pid", "--", harness.AppBinary())
			d.Reexec()
			text, err := os.ReadFile(dir + "/pid")
			if err != nil || strings.TrimSpace(string(text)) != fmt.Sprint(d.CurrentPID()) {
				t.Errorf("the pid file has %q, %v; not %d", text, err, d.CurrentPID())
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
			d.End()
			if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// Who asks by the control socket is answered by the old grace, and finds the new one at the same place.
func TestReexecByCommand(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			name := "reexec-" + strings.ToLower(rand.Text())
			d := harness.StartForReexec(t, way, "--name", name, "--listen", "web=127.0.0.1:0", "--metrics", "127.0.0.1:0", "--", harness.AppBinary())
			exporter := d.AwaitMessage("serving metrics").Address
			for range 3 {
				before := d.CurrentProcess()
				out, err := exec.Command(d.Program, "reexec", name).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "the new grace process has taken over") {
					t.Fatalf("%s, %v", out, err)
				}
				d.Reexecs++
				d.AwaitNth("taken over", d.Reexecs)
				if way == "another process" { // until it ends, the old one may be asked as well
					before.AwaitEnd()
				}
				out, err = exec.Command(d.Program, "status", "--json", name).CombinedOutput()
				if err != nil || !strings.Contains(string(out), fmt.Sprintf(`"pid":%d,`, d.CurrentPID())) {
					t.Fatalf("%s, %v; not %d", out, err, d.CurrentPID())
				}
				if body := harness.Get(t, exporter, "/metrics"); !strings.Contains(body, "grace_") {
					t.Fatalf("%s", body)
				}
			}
			if err := os.Remove(d.Program); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(harness.GraceBinary(), "reexec", name).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "no such file") {
				t.Fatalf("%s, %v", out, err)
			}
			out, err = exec.Command(harness.GraceBinary(), "upgrade", name).CombinedOutput()
			if err != nil {
				t.Fatalf("%s, %v", out, err)
			}
			d.End()
		})
	}
}

// A container ends with its PID 1, so that has to stay.
func TestReexecAsPIDOne(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "grace")
	programs := harness.StaticPrograms()
	install := func() {
		t.Helper()
		_ = os.Remove(program) // it may be missing
		if err := os.Link(filepath.Join(programs, "grace"), program); err != nil {
			t.Fatal(err)
		}
	}
	install()
	c := harness.StartContainer(t, func(spec harness.Spec) {
		spec.Mount("/programs", "bind", dir, "bind", "ro")
		spec.At("process")["args"].([]string)[0] = "/programs/grace"
	}, "--listen", "web=127.0.0.1:0", "--", "/app")
	d := &harness.ReexecGrace{Grace: c.Grace}
	addr := d.Address("web")
	d.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for n := 1; n <= 5; n++ {
			c.Do("kill", c.Name, "USR2")
			if e := d.AwaitNth("taken over", n); e.PID != 1 {
				t.Errorf("grace is process %d", e.PID)
			}
		}
		if err := os.Remove(program); err != nil { // as install(1) does: a program that runs cannot be written to
			t.Fatal(err)
		}
		harness.Write(t, dir, "grace", "no program", 0o755)
		c.Do("kill", c.Name, "USR2")
		if e := d.AwaitMessage("reexec failed, this grace process continues"); !strings.Contains(e.Why, "exec format error") {
			t.Errorf("it failed because %s", e.Why)
		}
		install()
		c.Do("kill", c.Name, "HUP")
		d.AwaitGeneration("upgraded", 2)
		c.Do("kill", c.Name, "USR2")
		d.AwaitNth("taken over", 6)
	})
	if n := d.Count("instance started"); n != 2 {
		t.Errorf("%d instances were started", n)
	}
	c.Do("kill", c.Name, "TERM")
	c.Ends(0)
}

// A program that hangs holds up no deadline, and what it has started does not outlive it.
func TestHangingSuccessorHoldsNothingUp(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			sleep := harness.NewSleep()
			d := harness.StartForReexec(t, way, "--listen", "web=127.0.0.1:0", "--drain-timeout", "3s", "--", harness.AppBinary(), "-ignore-term")
			d.Upgrade(2)
			if err := os.Remove(d.Program); err != nil {
				t.Fatal(err)
			}
			if err := harness.WriteFile(d.Program, "#!/bin/sh\nsetsid "+sleep+" &\nwait\n", 0o755); err != nil {
				t.Fatal(err)
			}
			d.SignalCurrent(syscall.SIGUSR2)
			d.AwaitGeneration("generation ended", 1)
			if d.Said("reexec failed") {
				t.Error("the old generation has ended after the program was given up")
			}
			d.AwaitMessage("reexec failed, this grace process continues")
			if d.Said("instance still running after SIGKILL") {
				t.Error("what has ended is said to be there")
			}
			harness.Until(t, "what the program has started is gone", func() bool { return len(harness.PIDsOf(t, sleep)) == 0 })
			d.Signal(syscall.SIGQUIT)
			d.Wait()
		})
	}
}
