package takeover

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

func release(t *testing.T, name string) string {
	t.Helper()
	output, err := exec.Command(harness.GraceBinary(), "release", name).CombinedOutput()
	if err != nil {
		return string(output)
	}
	return ""
}

// An app that is released runs on, and comes back under another grace process; its clients notice neither.
func TestReleasedAppsServeOn(t *testing.T) {
	for way := range ways {
		for _, instances := range []string{"1", "3"} {
			t.Run(way+", "+instances, func(t *testing.T) {
				requirement.Check(t, "ptrace", mayTake())
				t.Parallel()
				addr, name := freeport.Address(t), strings.ReplaceAll(strings.ReplaceAll(t.Name(), "/", "-"), ",", "")
				s := harness.Start(t, append([]string{"--name", name, "--instances", instances, "--settle", "50ms", "--empty", "0s"}, ways[way](addr)...)...)
				s.AwaitReady(1)
				s.Upgrade(2)
				s.AwaitGeneration("generation ended", 1)
				var app []int
				for _, e := range s.Entries() {
					if e.Message == "instance started" && e.Generation == 2 {
						app = append(app, e.PID)
						t.Cleanup(func() { _ = syscall.Kill(-e.PID, syscall.SIGKILL) })
					}
				}
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
					if failed := release(t, name); failed != "" {
						t.Fatal(failed)
					}
					if status := s.Wait(); status != 0 {
						t.Errorf("grace has ended with status %d", status)
					}
					for _, pid := range app {
						if !childproc.Living(pid) {
							t.Errorf("instance %d has ended", pid)
						}
					}
					again := start(t, way, addr, "--name", name, "--adopt", "never", "--empty", "0s")
					again.AwaitReady(1)
					again.AwaitGeneration("generation ended", 0)
					t.Cleanup(again.Stop)
				})
			})
		}
	}
}

func TestUnixPathsStayWithReleasedApps(t *testing.T) {
	path := t.TempDir() + "/s"
	s := harness.Start(t, "--name", t.Name(), "--listen", "web=unix://"+path, "--", harness.AppBinary())
	s.AwaitReady(1)
	pid := s.AwaitMessage("instance started").PID
	t.Cleanup(func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
	harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: harness.EveryKind}, func() {
		if failed := release(t, t.Name()); failed != "" {
			t.Fatal(failed)
		}
		s.Wait()
		harness.AwaitListener(t, "unix", path)
	})
}

func TestReleaseIsRefused(t *testing.T) {
	s := harness.Start(t, "--name", t.Name(), "--ready", "notify", "--", harness.AppBinary(), "-addr", freeport.Address(t), "-notify", "10m")
	s.AwaitMessage("instance started")
	if why := release(t, t.Name()); !strings.Contains(why, "an upgrade or a start is in progress") {
		t.Errorf("grace says %q", why)
	}
	s.Stop()
	s = harness.StartWith(t, func(c *exec.Cmd) { c.Env = append(c.Environ(), "NOTIFY_SOCKET=@"+t.Name()) }, "--name", t.Name(), "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	s.AwaitReady(1)
	if why := release(t, t.Name()); !strings.Contains(why, "the service manager, or the container, ends the app together with grace") {
		t.Errorf("grace says %q", why)
	}
	s.Stop()
}
