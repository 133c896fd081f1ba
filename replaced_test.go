//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
	"golang.org/x/sys/unix"
)

// install puts a program at a path, as a deploy does: whoever runs the old one keeps it.
func install(t *testing.T, path, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path+".new", text, 0o755), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func installBroken(t *testing.T, path string) {
	t.Helper()
	install(t, path, write(t, t.TempDir(), "broken", "#!/bin/sh\nexit 9\n", 0o755))
}

// executed is what a process was started from.
func executed(t *testing.T, pid int) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// TestCrashRunsWhatTheGenerationRan: what a deploy has put at the path comes in by an upgrade, which checks it.
func TestCrashRunsWhatTheGenerationRan(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app")
			install(t, path, appBinary)
			d := found(t, way, "--listen", "web=127.0.0.1:0", "--", path)
			installBroken(t, path)
			d.crash(1)
			again := d.instance("instance ready", 2)
			if at := executed(t, again.PID); at != path+" (deleted)" {
				t.Errorf("the restart runs %s", at)
			}
			d.await("what is started", func(e entry) bool {
				return e.Message == "generation 1 is started from its own executable" && strings.Contains(e.Why, path+" is another file now")
			})
			d.reexec()
			d.crash(1)
			d.instance("instance ready", 3)
			d.order(syscall.SIGHUP)
			d.awaitOf("upgrade failed", 2)
			d.end()
		})
	}
}

// TestCrashRunsAReplacedScript, which its interpreter opens by its path: the log says so.
func TestCrashRunsAReplacedScript(t *testing.T) {
	dir := t.TempDir()
	script := write(t, dir, "run", "#!/bin/sh\nexec "+appBinary+"\n", 0o755)
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", script)
	s.ready(1)
	install(t, script, write(t, dir, "other", "#!/bin/sh\nOTHER=1 exec "+appBinary+"\n", 0o755))
	s.crash(1)
	s.instance("instance ready", 2)
	s.await("what is started", func(e entry) bool {
		return strings.HasPrefix(e.Message, "generation 1 is started from another file than before") && strings.Contains(e.Why, script)
	})
	s.stop()
}

// anotherBuild is the app with another build id.
func anotherBuild(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(appBinary)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".note.gnu.build-id", ".note.go.buildid"} {
		if id := binary.Section(name); id != nil {
			text[id.Offset+id.Size-1] ^= 1
		}
	}
	return write(t, t.TempDir(), "another", string(text), 0o755)
}

// TestRollbackToAReplacedProgram: the old one is nowhere but in grace's hands.
func TestRollbackToAReplacedProgram(t *testing.T) {
	for _, way := range waysToReexec {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			path, name := filepath.Join(t.TempDir(), "app"), "replaced-"+strings.ToLower(rand.Text())
			install(t, path, appBinary)
			d := found(t, way, "--name", name, "--listen", "web=127.0.0.1:0", "--", path)
			first := d.instance("instance ready", 1)
			old := inode(t, first.PID)
			install(t, path, anotherBuild(t))
			d.upgrade(2)
			d.awaitOf("generation ended", 1)
			fresh := inode(t, d.instance("instance ready", 2).PID)
			d.reexec()
			at, err := control.Find(name)
			if err != nil {
				t.Fatal(err)
			}
			c := control.NewClient(at.Path)
			defer c.Close()
			for n, want := range []uint64{old, fresh, old} {
				if r, _ := request(t, c, control.Request{Do: control.Rollback}); r.Outcome != control.Upgraded {
					t.Fatalf("rollback: %+v", r)
				}
				if got := inode(t, d.instance("instance ready", 3+n).PID); got != want {
					t.Errorf("generation %d runs inode %d and not %d", 3+n, got, want)
				}
			}
			d.end()
		})
	}
}

func inode(t *testing.T, pid int) uint64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &s); err != nil {
		t.Fatal(err)
	}
	return s.Ino
}
