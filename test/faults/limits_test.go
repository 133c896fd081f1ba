package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// leaking makes processes at GET /leak until the system gives no more, and answers how many.
const leaking = `
import os, signal, socket, sys
s = socket.socket(fileno=int(sys.argv[1])); s.setblocking(True)
while True:
    c, _ = s.accept(); asked = c.recv(4096); n = 0
    while b"/leak" in asked:
        try: pid = os.fork()
        except OSError: break
        if pid == 0:
            c.close(); signal.pause(); os._exit(0)
        n += 1
    body = b"%d" % n
    c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)); c.close()
`

func leakingApp(addr string) []string {
	return []string{"--listen", addr, "--drain-timeout", "5s", "--", "/usr/bin/python3", "-c", leaking, "{fd}"}
}

// An app that has used up the limit of processes is to be replaced: grace has to live, and to say what is wrong.
func TestGraceOutlivesTheLimitOfProcesses(t *testing.T) {
	harness.NeedRoot(t)
	t.Run("of a user", func(t *testing.T) {
		t.Parallel()
		addr, user := freeport.Address(t), 100_000+rand.IntN(1_000_000)
		runtimeDir, err := os.MkdirTemp("", "grace-test-") // which others can pass, other than t.TempDir
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(runtimeDir) })
		if err := os.Chown(runtimeDir, user, user); err != nil {
			t.Fatal(err)
		}
		s := harness.StartWith(t, func(c *exec.Cmd) {
			c.Args = append([]string{"prlimit", "--nproc=48", c.Path}, c.Args[1:]...)
			c.Path = "/usr/bin/prlimit"
			c.Dir = "/"
			c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+runtimeDir, "RUNTIME_DIRECTORY=")
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
		}, append([]string{"--name", "limited"}, leakingApp(addr)...)...)
		outlives(s, addr, func() { flood(t, runtimeDir+"/grace/limited.sock") })
	})
	t.Run("of a cgroup", func(t *testing.T) {
		t.Parallel()
		addr := freeport.Address(t)
		c := harness.StartContainer(t, func(spec harness.Spec) {
			harness.WithHost(spec)
			spec.At("linux")["resources"] = harness.Spec{"pids": harness.Spec{"limit": 48}}
		}, leakingApp(addr)...)
		outlives(c.Grace, addr, func() {})
	})
}

func outlives(s *harness.Grace, addr string, meanwhile func()) {
	s.T.Helper()
	s.AwaitReady(1)
	leaked, err := strconv.Atoi(harness.Get(s.T, addr, "/leak"))
	if err != nil || leaked == 0 {
		s.T.Fatalf("the app has made %d processes: %v", leaked, err)
	}
	for n := 2; n <= 12; n++ {
		s.Signal(syscall.SIGHUP)
		meanwhile()
		if failed := s.AwaitGeneration("upgrade failed, generation 1 still serves", n); !strings.Contains(failed.Why, "limit of processes") {
			s.T.Errorf("the upgrade failed because: %s", failed.Why)
		}
	}
	if got := harness.Get(s.T, addr, "/"); got != "0" {
		s.T.Errorf("the app answers %q", got)
	}
	s.Signal(syscall.SIGQUIT)
	s.Ends(128 + 9)
}

// flood asks for the status many times at once. Those who ask are root, whom no limit holds up.
func flood(t *testing.T, socket string) {
	t.Helper()
	var asking sync.WaitGroup
	for range 16 {
		asking.Go(func() {
			if out, err := exec.Command(harness.GraceBinary(), "status", socket).CombinedOutput(); err != nil {
				t.Error(fmt.Errorf("%w: %s", err, out))
			}
		})
	}
	asking.Wait()
}

// A logout removes the runtime directory, as a cleaner of /tmp does.
func TestRuntimeDirectoryThatVanishes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runtime")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "RUNTIME_DIRECTORY=")
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Env = env },
		"--name", "vanishing", "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	addr := s.Address("web")
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		if err := harness.RemoveAtOnce(dir); err != nil {
			t.Fatal(err)
		}
		s.Upgrade(2)
		if told := s.AwaitMessage("the app has an abstract NOTIFY_SOCKET"); !strings.Contains(told.Why, dir) {
			t.Errorf("it does not say which directory: %s", told.Why)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.AwaitMessage("the control socket was created again") // in /run/grace, if grace may and was faster
		upgrade := exec.Command(harness.GraceBinary(), "upgrade", "vanishing")
		upgrade.Env = env
		if out, err := upgrade.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		s.Signal(syscall.SIGUSR2)
		s.AwaitMessage("taken over")
	})
	s.Crash(3)
	s.AwaitMessage("restarting")
	s.Await("the restarted instance is ready", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Instance == 4 })
	s.Stop()
	if left, err := filepath.Glob(dir + "/*/*"); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A running instance is heard again, by the grace process that has started it and by the next one.
func TestNotifySocketThatVanishes(t *testing.T) {
	t.Parallel()
	dir, run := harness.WorldFolder(t), harness.WorldFolder(t)
	script := "#!/bin/sh\nuntil test -e " + dir + "/go; do sleep 0.05; done\nexec " + harness.AppBinary() + " -take fd:3 -notify 0s\n"
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+run) },
		"--listen", "web=127.0.0.1:0", "--ready", "notify", "--", harness.Write(t, dir, "app", script, 0o755))
	vanish := func() {
		t.Helper()
		lost, err := filepath.Glob(run + "/grace-run-*")
		if err != nil || len(lost) != 1 {
			t.Fatalf("%v, %v", lost, err)
		}
		if err := harness.RemoveAtOnce(lost[0]); err != nil {
			t.Fatal(err)
		}
	}
	anew := func(e harness.Entry) bool { return e.Message == "the app's NOTIFY_SOCKET was created again" }
	s.AwaitMessage("instance started")
	vanish()
	s.Await("the socket is made anew", anew)
	harness.Touch(t, dir+"/go")
	s.AwaitReady(1)
	if err := os.Remove(dir + "/go"); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGHUP)
	s.AwaitGeneration("instance started", 2)
	vanish()
	s.AwaitTimes("the sockets of both are made anew", 3, anew)
	harness.Touch(t, dir+"/go")
	s.AwaitReady(2)
	s.AwaitGeneration("generation ended", 1)
	s.Signal(syscall.SIGUSR2)
	s.AwaitMessage("taken over")
	vanish()
	s.AwaitTimes("the successor makes it anew", 4, anew)
	s.Upgrade(3)
	s.Stop()
	if left, err := filepath.Glob(run + "/grace-run-*"); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Where the runtime directory is full, or cannot be written to any more, grace goes on.
func TestRuntimeDirectoryOnAFileSystemThatIsFull(t *testing.T) {
	for name, c := range map[string]struct {
		options string
		harm    func(t *testing.T, dir string)
		why     string // of an abstract socket; empty where there need not be one
	}{
		"no inodes": {"nr_inodes=16", func(t *testing.T, dir string) {
			fill(t, func(n int) error { return os.WriteFile(fmt.Sprintf("%s/%d", dir, n), nil, 0o600) })
		}, "no space left on device"},
		"no space": {"size=64k", func(t *testing.T, dir string) {
			file, err := os.Create(dir + "/file")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			fill(t, func(int) error { _, err := file.Write(make([]byte, 4096)); return err })
		}, ""},
		"read-only": {"", func(t *testing.T, dir string) {
			if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, ""); err != nil { // a remount needs that nobody has a file open
				t.Fatal(err)
			}
			t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		}, "read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := harness.WorldFolder(t)
			requirement.Check(t, "root", syscall.Mount("tmpfs", run, "tmpfs", 0, c.options))
			t.Cleanup(func() { syscall.Unmount(run, syscall.MNT_DETACH) })
			s := harness.StartWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+run, "RUNTIME_DIRECTORY="+run) },
				"--name", "full", "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-notify", "0s")
			addr := s.Address("web")
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
				c.harm(t, run)
				s.Upgrade(2)
				if c.why != "" {
					if e := s.AwaitMessage("the app has an abstract NOTIFY_SOCKET"); !strings.Contains(e.Why, c.why) || !strings.Contains(e.Why, run) {
						t.Errorf("why: %s", e.Why)
					}
				}
				s.AwaitGeneration("generation ended", 1)
			})
			s.Crash(2)
			s.Await("the restarted instance is ready", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Instance == 3 })
			s.Signal(syscall.SIGTERM)
			s.Ends(0)
		})
	}
}

// fill does it until there is no space left.
func fill(t *testing.T, do func(n int) error) {
	t.Helper()
	for n := range 1000 {
		if err := do(n); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("it does not become full")
}

// A grace process that was killed leaves its runtime directory, and the next one removes it; that of a living one stays, whatever
// process that is by now.
func TestRuntimeDirectoryOfAKilledGraceIsRemoved(t *testing.T) {
	harness.NeedRoot(t)
	for name, change := range map[string]func(*exec.Cmd){"root": func(*exec.Cmd) {}, "user": harness.AsNobody} {
		for _, way := range harness.ReexecWays {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				start := graceIn(t, change, way == harness.ReexecWays[0])
				killed := start()
				left := runtimeDir(killed, 1)
				app := killed.AwaitMessage("instance started").PID
				killed.Signal(syscall.SIGKILL)
				killed.Wait()
				if got := harness.Get(t, killed.Address("web"), "/"); got == "" {
					t.Error("the app of the killed grace does not answer")
				}
				if err := syscall.Kill(app, syscall.SIGKILL); err != nil { // otherwise it would be adopted
					t.Error(err)
				}
				harness.Until(t, "the app has ended", func() bool { return !childproc.Living(app) })
				alive := start()
				kept := runtimeDir(alive, 1)
				if _, err := os.Stat(left); err == nil {
					t.Error("the directory of the killed grace is left")
				}
				alive.Signal(syscall.SIGUSR2)
				d := &harness.ReexecGrace{Grace: alive}
				next := alive.AwaitMessage("taken over").PID
				start().Stop()
				if _, err := os.Stat(kept); err != nil {
					t.Errorf("the directory of a living grace is removed: %v", err)
				}
				d.Upgrade(2)
				if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				alive.AwaitMessage("generation ended")
				harness.Until(t, "the directory is removed", func() bool { _, err := os.Stat(kept); return err != nil })
			})
		}
	}
}

// graceIn gives what starts grace processes that share a place for their runtime directories.
func graceIn(t *testing.T, change func(*exec.Cmd), managed bool) func() *harness.Grace {
	dir, err := os.MkdirTemp("", "grace-test-") // which others can pass, other than t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return func() *harness.Grace {
		s := harness.StartWith(t, func(c *exec.Cmd) {
			change(c)
			if c.SysProcAttr != nil {
				if err := os.Chown(dir, int(c.SysProcAttr.Credential.Uid), -1); err != nil {
					t.Fatal(err)
				}
			}
			c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+dir, "NOTIFY_SOCKET=")
			if managed { // nobody listens there, and grace becomes another process all the same
				c.Env = append(c.Env, "NOTIFY_SOCKET=@grace-test-nobody")
			}
		}, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
		s.AwaitReady(1)
		return s
	}
}

// runtimeDir is the directory of an instance's NOTIFY_SOCKET.
func runtimeDir(s *harness.Grace, instance int) string {
	s.T.Helper()
	started := s.Await("the instance is started", func(e harness.Entry) bool { return e.Message == "instance started" && e.Instance == instance })
	return filepath.Dir(notifySocket(s, started.PID))
}
