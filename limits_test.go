//go:build linux

package main

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

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
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
	needRoot(t)
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
		s := graceWith(t, func(c *exec.Cmd) {
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
		c := contain(t, func(spec config) {
			withHost(spec)
			spec.at("linux")["resources"] = config{"pids": config{"limit": 48}}
		}, leakingApp(addr)...)
		outlives(c.supervised, addr, func() {})
	})
}

func outlives(s *supervised, addr string, meanwhile func()) {
	s.t.Helper()
	s.ready(1)
	leaked, err := strconv.Atoi(ask(s.t, addr, "/leak"))
	if err != nil || leaked == 0 {
		s.t.Fatalf("the app has made %d processes: %v", leaked, err)
	}
	for n := 2; n <= 12; n++ {
		s.signal(syscall.SIGHUP)
		meanwhile()
		if failed := s.awaitOf("upgrade failed, generation 1 still serves", n); !strings.Contains(failed.Why, "limit of processes") {
			s.t.Errorf("the upgrade failed because: %s", failed.Why)
		}
	}
	if got := ask(s.t, addr, "/"); got != "0" {
		s.t.Errorf("the app answers %q", got)
	}
	s.signal(syscall.SIGQUIT)
	if status := s.wait(); status != 128+9 {
		s.t.Errorf("status %d", status)
	}
}

// flood asks for the status many times at once. Those who ask are root, whom no limit holds up.
func flood(t *testing.T, socket string) {
	t.Helper()
	var asking sync.WaitGroup
	for range 16 {
		asking.Go(func() {
			if out, err := exec.Command(graceBinary, "status", socket).CombinedOutput(); err != nil {
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
	s := graceWith(t, func(c *exec.Cmd) {
		c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "RUNTIME_DIRECTORY=")
	}, "--name", "vanishing", "--listen", "web=127.0.0.1:0", "--", appBinary)
	addr := s.address("web")
	s.ready(1)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		s.upgrade(2)
		if told := s.awaitMessage("the app has an abstract NOTIFY_SOCKET"); !strings.Contains(told.Why, dir) {
			t.Errorf("it does not say which directory: %s", told.Why)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.awaitMessage("the control socket was made anew")
		if out, err := exec.Command(graceBinary, "upgrade", dir+"/grace/vanishing.sock").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		s.signal(syscall.SIGUSR2)
		s.awaitMessage("taken over")
	})
	s.crash(3)
	s.awaitMessage("restarting")
	s.find("the restarted instance is ready", func(e entry, _ string) bool { return e.Message == "instance ready" && e.Instance == 4 })
	s.stop()
	if left, err := filepath.Glob(dir + "/*/*"); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A running instance is heard again, by the grace that has started it and by the next one.
func TestNotifySocketThatVanishes(t *testing.T) {
	t.Parallel()
	dir, run := worldFolder(t), worldFolder(t)
	script := "#!/bin/sh\nuntil test -e " + dir + "/go; do sleep 0.05; done\nexec " + appBinary + " -take fd:3 -notify 0s\n"
	s := graceWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+run) },
		"--listen", "web=127.0.0.1:0", "--ready", "notify", "--", write(t, dir, "app", script, 0o755))
	vanish := func() {
		t.Helper()
		lost, err := filepath.Glob(run + "/grace-run-*")
		if err != nil || len(lost) != 1 {
			t.Fatalf("%v, %v", lost, err)
		}
		if err := os.RemoveAll(lost[0]); err != nil {
			t.Fatal(err)
		}
	}
	anew := func(e entry, _ string) bool { return e.Message == "the app's NOTIFY_SOCKET was made anew" }
	s.awaitMessage("instance started")
	vanish()
	s.find("the socket is made anew", anew)
	touch(t, dir+"/go")
	s.ready(1)
	if err := os.Remove(dir + "/go"); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.awaitOf("instance started", 2)
	vanish()
	s.times("the sockets of both are made anew", 3, anew)
	touch(t, dir+"/go")
	s.ready(2)
	s.awaitOf("generation ended", 1)
	s.signal(syscall.SIGUSR2)
	s.awaitMessage("taken over")
	vanish()
	s.times("the successor makes it anew", 4, anew)
	s.upgrade(3)
	s.stop()
	if left, err := filepath.Glob(run + "/grace-run-*"); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

func (s *supervised) times(what string, n int, match func(entry, string) bool) {
	s.t.Helper()
	seen := 0
	s.find(what, func(e entry, text string) bool {
		if match(e, text) {
			seen++
		}
		return seen == n
	})
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
			run := worldFolder(t)
			requirement.Check(t, "root", syscall.Mount("tmpfs", run, "tmpfs", 0, c.options))
			t.Cleanup(func() { syscall.Unmount(run, syscall.MNT_DETACH) })
			s := graceWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+run, "RUNTIME_DIRECTORY="+run) },
				"--name", "full", "--listen", "web=127.0.0.1:0", "--", appBinary, "-notify", "0s")
			addr := s.address("web")
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
				c.harm(t, run)
				s.upgrade(2)
				if c.why != "" {
					if e := s.awaitMessage("the app has an abstract NOTIFY_SOCKET"); !strings.Contains(e.Why, c.why) || !strings.Contains(e.Why, run) {
						t.Errorf("why: %s", e.Why)
					}
				}
				s.awaitOf("generation ended", 1)
			})
			s.crash(2)
			s.find("the restarted instance is ready", func(e entry, _ string) bool { return e.Message == "instance ready" && e.Instance == 3 })
			s.signal(syscall.SIGTERM)
			if status := s.wait(); status != 0 {
				t.Errorf("status %d", status)
			}
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

// A grace that was killed leaves its runtime directory, and the next one removes it; that of a living one stays, whatever
// process that is by now.
func TestRuntimeDirectoryOfAKilledGraceIsRemoved(t *testing.T) {
	needRoot(t)
	for name, change := range map[string]func(*exec.Cmd){"root": func(*exec.Cmd) {}, "user": asNobody} {
		for _, way := range waysToReexec {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				start := graceIn(t, change, way == waysToReexec[0])
				killed := start()
				left := runtimeDir(killed, 1)
				app := killed.awaitMessage("instance started").PID
				killed.signal(syscall.SIGKILL)
				killed.wait()
				alive := start()
				kept := runtimeDir(alive, 1)
				if _, err := os.Stat(left); err == nil {
					t.Error("the directory of the killed grace is left")
				}
				if got := ask(t, killed.address("web"), "/"); got == "" {
					t.Error("the app of the killed grace does not answer")
				}
				if err := syscall.Kill(app, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				alive.signal(syscall.SIGUSR2)
				d := &dynasty{supervised: alive}
				next := alive.awaitMessage("taken over").PID
				start().stop()
				if _, err := os.Stat(kept); err != nil {
					t.Errorf("the directory of a living grace is removed: %v", err)
				}
				d.upgrade(2)
				if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				alive.awaitMessage("generation ended")
				until(t, "the directory is removed", func() bool { _, err := os.Stat(kept); return err != nil })
			})
		}
	}
}

// graceIn gives what starts graces that share a place for their runtime directories.
func graceIn(t *testing.T, change func(*exec.Cmd), managed bool) func() *supervised {
	dir, err := os.MkdirTemp("", "grace-test-") // which others can pass, other than t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return func() *supervised {
		s := graceWith(t, func(c *exec.Cmd) {
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
		}, "--listen", "web=127.0.0.1:0", "--", appBinary)
		s.ready(1)
		return s
	}
}

// runtimeDir is the directory of an instance's NOTIFY_SOCKET.
func runtimeDir(s *supervised, instance int) string {
	s.t.Helper()
	started := s.find("the instance is started", func(e entry, _ string) bool { return e.Message == "instance started" && e.Instance == instance })
	return filepath.Dir(notifySocket(s, started.PID))
}
