package upgrade

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
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

// install puts a program at a path, as a deploy does: whoever runs the old one keeps it.
func install(t *testing.T, path, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(harness.WriteFile(path+".new", string(text), 0o755), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func installBroken(t *testing.T, path string) {
	t.Helper()
	install(t, path, harness.Write(t, t.TempDir(), "broken", "#!/bin/sh\nexit 9\n", 0o755))
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
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app")
			install(t, path, harness.AppBinary())
			d := harness.StartForReexec(t, way, "--listen", "web=127.0.0.1:0", "--", path)
			installBroken(t, path)
			d.Crash(1)
			again := d.AwaitInstance("instance ready", 2)
			if at := executed(t, again.PID); at != path+" (deleted)" {
				t.Errorf("the restart runs %s", at)
			}
			d.Await("what is started", func(e harness.Entry) bool {
				return e.Message == "starting generation 1 from the executable that grace has kept" && strings.Contains(e.Why, path+" is another file now")
			})
			d.Reexec()
			d.Crash(1)
			d.AwaitInstance("instance ready", 3)
			d.SignalCurrent(syscall.SIGHUP)
			d.AwaitGeneration("upgrade failed", 2)
			d.End()
		})
	}
}

// TestCrashRunsAReplacedScript, which its interpreter opens by its path: the log says so.
func TestCrashRunsAReplacedScript(t *testing.T) {
	dir := t.TempDir()
	script := harness.Write(t, dir, "run", "#!/bin/sh\nexec "+harness.AppBinary()+"\n", 0o755)
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", script)
	s.AwaitReady(1)
	install(t, script, harness.Write(t, dir, "other", "#!/bin/sh\nOTHER=1 exec "+harness.AppBinary()+"\n", 0o755))
	s.Crash(1)
	s.AwaitInstance("instance ready", 2)
	s.Await("what is started", func(e harness.Entry) bool {
		return strings.HasPrefix(e.Message, "starting generation 1 from a changed file") && strings.Contains(e.Why, script)
	})
	s.Stop()
}

// anotherBuild is the app with another build id.
func anotherBuild(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(harness.AppBinary())
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
	return harness.Write(t, t.TempDir(), "another", string(text), 0o755)
}

// TestRollbackToAReplacedProgram: the old one is nowhere but in grace's hands.
func TestRollbackToAReplacedProgram(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			path, name := filepath.Join(t.TempDir(), "app"), "replaced-"+strings.ToLower(rand.Text())
			install(t, path, harness.AppBinary())
			d := harness.StartForReexec(t, way, "--name", name, "--listen", "web=127.0.0.1:0", "--", path)
			first := d.AwaitInstance("instance ready", 1)
			old := inode(t, first.PID)
			install(t, path, anotherBuild(t))
			d.Upgrade(2)
			d.AwaitGeneration("generation ended", 1)
			fresh := inode(t, d.AwaitInstance("instance ready", 2).PID)
			d.Reexec()
			c, _ := harness.Client(t, name)
			for n, want := range []uint64{old, fresh, old} {
				if r, _ := harness.Ask(t, c, control.Request{Do: control.Rollback}); r.Outcome != control.Upgraded {
					t.Fatalf("rollback: %+v", r)
				}
				if got := inode(t, d.AwaitInstance("instance ready", 3+n).PID); got != want {
					t.Errorf("generation %d runs inode %d and not %d", 3+n, got, want)
				}
			}
			d.End()
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
