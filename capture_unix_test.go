//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// The server removes what is at its path before it binds, whoever serves there.
const pathServer = " -network unix -addr PATH -remove"

func TestCapturedUnixSocketsLoseNothing(t *testing.T) {
	for name, server := range map[string]struct {
		program, command string
	}{
		"Go":       {appBinary, appBinary + pathServer},
		"gunicorn": {"gunicorn", "gunicorn --chdir FILES --bind unix:PATH --preload --workers 2 wsgi:app"},
	} {
		for user, as := range users {
			t.Run(name+", "+user, func(t *testing.T) {
				t.Parallel()
				need(t, server.program)
				s, path := captureUnix(t, as, server.command)
				under(t, load.Config{Network: "unix", Addr: path, Clients: passing}, func() { s.upgrades(as.upgrades) })
				s.stop()
				checkNothingBeside(t, path)
			})
		}
	}
}

// captureUnix starts a server with a path that an earlier one has left behind.
func captureUnix(t *testing.T, as runAs, command string) (*supervised, string) {
	t.Helper()
	dir := worldFolder(t)
	path := filepath.Join(dir, "socket")
	leaveBehind(t, path)
	files, err := filepath.Abs("testdata/servers")
	if err != nil {
		t.Fatal(err)
	}
	command = strings.NewReplacer("PATH", path, "FILES", files).Replace(command)
	arguments := append([]string{"--capture-unix", "socket", "--chdir", dir, "--settle", "50ms", "--ready-delay", "1m", "--drain-timeout", "20s"}, as.flags...)
	s := graceWith(t, func(c *exec.Cmd) { c.SysProcAttr = as.process }, append(append(arguments, "--"), strings.Fields(command)...)...)
	s.ready(1)
	return s, path
}

// worldFolder is one where any user can make files.
func worldFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace-unix-") // the test's name would make a path too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func leaveBehind(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

func checkNothingBeside(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestKeptConnectionsToACapturedUnixSocket(t *testing.T) {
	t.Parallel()
	s, path := captureUnix(t, users["as it is"], appBinary+pathServer)
	under(t, load.Config{Network: "unix", Addr: path, Clients: everyKind}, func() { s.upgrades(4) })
	s.stop()
}

// Clients see the app as their peer, and not grace; with the mode that it has set.
func TestCapturedUnixSocketIsTheApps(t *testing.T) {
	t.Parallel()
	s, path := captureUnix(t, users["the app is nobody's"], appBinary+pathServer)
	for generation := 1; generation <= 2; generation++ {
		if generation == 2 {
			s.upgrade(2)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if peer := peerOf(t, conn); peer.Uid != nobody || int(peer.Pid) != s.instance("instance started", generation).PID {
			t.Errorf("generation %d: the peer is process %d of uid %d", generation, peer.Pid, peer.Uid)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != nobody || info.Mode().Perm() != 0o755 {
			t.Errorf("generation %d: mode %o of uid %d", generation, info.Mode().Perm(), owner)
		}
	}
	s.stop()
}

func peerOf(t *testing.T, conn net.Conn) *syscall.Ucred {
	t.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var peer *syscall.Ucred
	failed := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	return peer
}

func TestUpgradeOfAUnixSocketIsUndone(t *testing.T) {
	t.Parallel()
	dir := worldFolder(t)
	path := filepath.Join(dir, "socket")
	app := crashing(strings.ReplaceAll(`"$0"`+pathServer, "PATH", path))
	s := grace(t, "--capture-unix", path, "--settle", "30s", "--chdir", dir, "--", "sh", "-c", app, appBinary)
	s.ready(1)
	touch(t, filepath.Join(dir, "later"))
	s.upgrade(2)
	touch(t, filepath.Join(dir, "crash"))
	s.awaitOf("upgrade undone, generation 1 serves again", 2)
	under(t, load.Config{Network: "unix", Addr: path, Clients: passing}, func() { s.awaitOf("generation ended", 2) })
	s.stop()
}

// Who comes while a crashed app is started again waits.
func TestCrashAtAUnixSocketIsWaitedOut(t *testing.T) {
	t.Parallel()
	s, path := captureUnix(t, users["as it is"], appBinary+pathServer)
	clients := map[load.Kind]int{load.NewConnection: 4}
	tally := counted(t, load.Config{Network: "unix", Addr: path, Clients: clients}, func(l *load.Load) { dieUnder(s, l) })
	s.stop()
	if most := uint64(crashes * clients[load.NewConnection]); tally.Failures() > most {
		t.Errorf("more than %d requests failed: %v, first %v", most, tally.ByFailure(), tally.First)
	}
}

// What is not declared is left alone, and unlink of other files does what it says.
func TestOtherPathsAreTheApps(t *testing.T) {
	t.Parallel()
	dir := worldFolder(t)
	other := filepath.Join(dir, "other")
	s := grace(t, "--capture-unix", filepath.Join(dir, "socket"), "--ready-delay", "1ms", "--chdir", dir, "--",
		"python3", "-c", "import os,socket,time;s=socket.socket(socket.AF_UNIX);open('x','w');os.unlink('x');s.bind('other');s.listen();time.sleep(1000)")
	s.ready(1)
	awaitPath(t, other)
	names := ""
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names += e.Name() + " "
	}
	if names != "other " || err != nil {
		t.Error(names, err)
	}
	s.stop()
}

func awaitPath(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
