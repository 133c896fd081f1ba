package capture

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/test/harness"
)

// The server removes what is at its path before it binds, whoever serves there.
const pathServer = " -network unix -addr PATH -remove"

func TestCapturedUnixSocketsLoseNothing(t *testing.T) {
	for name, server := range map[string]struct {
		program, command string
	}{
		"Go":       {harness.AppBinary(), harness.AppBinary() + pathServer},
		"gunicorn": {"gunicorn", "gunicorn --chdir FILES --bind unix:PATH --preload --workers 2 wsgi:app"},
	} {
		for user, as := range users {
			t.Run(name+", "+user, func(t *testing.T) {
				t.Parallel()
				harness.Need(t, server.program)
				s, path := captureUnix(t, as, server.command)
				harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: passing}, func() { s.Upgrades(as.upgrades) })
				s.Stop()
				checkNothingBeside(t, path)
			})
		}
	}
}

// Each generation has a socket of its own, which grace makes, so that none accepts for its successor.
func TestSteeredUnixSocketLosesNothing(t *testing.T) {
	for user, as := range users {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			dir := harness.WorldFolder(t)
			path := filepath.Join(dir, "socket")
			leaveBehind(t, path)
			arguments := append([]string{"--listen", "web=unix://" + path + "?steer=true&mode=0666", "--settle", "50ms", "--drain-timeout", "20s"}, as.flags...)
			s := harness.StartWith(t, func(c *exec.Cmd) { c.SysProcAttr = as.process }, append(arguments, "--", harness.PlainBinary(), "fd:3")...)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: passing}, func() { s.Upgrades(as.upgrades) })
			if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o666 {
				t.Errorf("the path is %v, %v", info, err)
			}
			s.Stop()
			checkNothingBeside(t, path)
		})
	}
}

// captureUnix starts a server with a path that an earlier one has left behind.
func captureUnix(t *testing.T, as runAs, command string) (*harness.Grace, string) {
	t.Helper()
	dir := harness.WorldFolder(t)
	path := filepath.Join(dir, "socket")
	leaveBehind(t, path)
	files := harness.Testdata(t, "servers")
	command = strings.NewReplacer("PATH", path, "FILES", files).Replace(command)
	arguments := append([]string{"--capture-unix", "socket", "--chdir", dir, "--settle", "50ms", "--ready-delay", "1m", "--drain-timeout", "20s"}, as.flags...)
	s := harness.StartWith(t, func(c *exec.Cmd) { c.SysProcAttr = as.process }, append(append(arguments, "--"), strings.Fields(command)...)...)
	s.AwaitReady(1)
	return s, path
}

func leaveBehind(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if err := os.Chown(path, harness.Nobody, harness.Nobody); err != nil {
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
	s, path := captureUnix(t, users["as it is"], harness.AppBinary()+pathServer)
	harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: harness.EveryKind}, func() { s.Upgrades(4) })
	s.Stop()
}

// Clients see the app as their peer, and not grace; with the mode that it has set.
func TestCapturedUnixSocketIsTheApps(t *testing.T) {
	t.Parallel()
	s, path := captureUnix(t, users["the app is nobody's"], harness.AppBinary()+pathServer)
	for generation := 1; generation <= 2; generation++ {
		if generation == 2 {
			s.Upgrade(2)
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
		if peer := peerOf(t, conn); peer.Uid != harness.Nobody || int(peer.Pid) != s.AwaitInstance("instance started", generation).PID {
			t.Errorf("generation %d: the peer is process %d of uid %d", generation, peer.Pid, peer.Uid)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != harness.Nobody || info.Mode().Perm() != 0o755 {
			t.Errorf("generation %d: mode %o of uid %d", generation, info.Mode().Perm(), owner)
		}
	}
	s.Stop()
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
	dir := harness.WorldFolder(t)
	path := filepath.Join(dir, "socket")
	app := crashing(strings.ReplaceAll(`"$0"`+pathServer, "PATH", path))
	s := harness.Start(t, "--capture-unix", path, "--settle", "30s", "--chdir", dir, "--", "sh", "-c", app, harness.AppBinary())
	s.AwaitReady(1)
	harness.Touch(t, filepath.Join(dir, "later"))
	s.Upgrade(2)
	harness.Touch(t, filepath.Join(dir, "crash"))
	s.AwaitGeneration("upgrade undone, generation 1 serves again", 2)
	harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: passing}, func() { s.AwaitGeneration("generation ended", 2) })
	s.Stop()
}

// Who comes while a crashed app is started again waits.
func TestCrashAtAUnixSocketIsWaitedOut(t *testing.T) {
	t.Parallel()
	s, path := captureUnix(t, users["as it is"], harness.AppBinary()+pathServer)
	clients := map[load.Kind]int{load.NewConnection: 4}
	tally := counted(t, load.Config{Network: "unix", Addr: path, Clients: clients}, func(l *load.Load) { dieUnder(s, l) })
	s.Stop()
	if most := uint64(crashes * clients[load.NewConnection]); tally.Failures() > most {
		t.Errorf("more than %d requests failed: %v, first %v", most, tally.ByFailure(), tally.First)
	}
}

// What is not declared is left alone, and unlink of other files does what it says.
func TestOtherPathsAreTheApps(t *testing.T) {
	t.Parallel()
	dir := harness.WorldFolder(t)
	other := filepath.Join(dir, "other")
	s := harness.Start(t, "--capture-unix", filepath.Join(dir, "socket"), "--ready-delay", "1ms", "--chdir", dir, "--",
		"python3", "-c", "import os,socket,time;s=socket.socket(socket.AF_UNIX);open('x','w');os.unlink('x');s.bind('other');s.listen();time.sleep(1000)")
	s.AwaitReady(1)
	harness.AwaitListener(t, "unix", other)
	names := ""
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names += e.Name() + " "
	}
	if names != "other " || err != nil {
		t.Error(names, err)
	}
	s.Stop()
}
