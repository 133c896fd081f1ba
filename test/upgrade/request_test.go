package upgrade

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// named is a grace process that can be asked for by a name of its own.
func named(t *testing.T, arguments ...string) (*harness.Grace, *control.Client) {
	t.Helper()
	name := fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	s := harness.Start(t, append([]string{"--name", name}, arguments...)...)
	s.AwaitReady(1)
	client, _ := harness.Client(t, name)
	return s, client
}

// TestUpgradeThatFailsSaysWhy: in each way in which it can, and what served goes on.
func TestUpgradeThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := harness.Write(t, dir, "broken", "#!/bin/sh\nexit 9\n", 0o755)
	deaf := harness.Write(t, dir, "deaf", "#!/bin/sh\nexec sleep 1000\n", 0o755)
	garbage := harness.Write(t, dir, "garbage", "\x7fELF and nothing more", 0o755)
	lost := harness.Write(t, dir, "lost", "#!/no/such/interpreter\n", 0o755)
	checked := filepath.Join(dir, "checked")
	s, c := named(t, "--listen", "web=127.0.0.1:0", "--ready-timeout", "5s", "--check", "test ! -e "+checked, "--", harness.AppBinary())
	harness.UnderLoad(t, load.Config{Addr: s.Address("web"), Clients: harness.EveryKind}, func() {
		for _, test := range []struct {
			command []string
			why     string
			ran     bool // and may have written something
		}{
			{[]string{dir + "/none"}, "cannot find command", false},
			{[]string{"no-such-command"}, "in PATH", false},
			{[]string{dir}, "is a directory", false},
			{[]string{broken}, "exit status 9", true},
			{[]string{deaf}, "not ready within 5s", true},
			{[]string{garbage}, "exec format error", false},
			{[]string{lost}, "no such file", false},
			{[]string{harness.AppBinary(), "{fd:wbe}"}, "wbe", false},
			{[]string{harness.AppBinary(), "-no-such-flag"}, "exit status 2", true},
		} {
			r, _ := harness.Ask(t, c, control.Request{Do: control.Upgrade, Command: test.command})
			if r.Outcome != control.Failed || r.Serving != 1 || !strings.Contains(r.Why, test.why) || (r.Output != "") != test.ran {
				t.Errorf("%q: %+v, and the reason is %q", test.command, r, test.why)
			}
		}
		harness.Write(t, dir, "checked", "", 0o644)
		if r, _ := harness.Ask(t, c, control.Request{Do: control.Upgrade}); r.Outcome != control.Failed || !strings.Contains(r.Why, "--check failed") {
			t.Errorf("with a check that fails: %+v", r)
		}
	})
	if now := harness.Status(t, c); now.Current != 1 || now.State != "serving" || now.Upgrades[len(now.Upgrades)-1].Outcome != control.Failed {
		t.Errorf("status: %+v", now)
	}
	s.Stop()
}

func TestUpgradeToACommandAndBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "current")
	for _, release := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, release), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(harness.AppBinary(), filepath.Join(dir, release, "app")); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(to string) {
		if err := errors.Join(os.Symlink(to, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	flip("1")
	s, c := named(t, "--listen", "web=127.0.0.1:0", "--chdir", link, "--", "./app")
	folder := func() string {
		now := harness.Status(t, c)
		g := now.Generations[len(now.Generations)-1]
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", g.Instances[0].PID))
		if err != nil || g.Number != now.Current {
			t.Errorf("generation %d of %d: %v", g.Number, now.Current, err)
		}
		return filepath.Base(dir)
	}
	harness.UnderLoad(t, load.Config{Addr: s.Address("web"), Clients: harness.EveryKind}, func() {
		if at := folder(); at != "1" {
			t.Errorf("the first generation runs in %s", at)
		}
		flip("2")
		r, told := harness.Ask(t, c, control.Request{Do: control.Upgrade, Command: []string{"./app", "-delay", "1ms"}})
		if r.Outcome != control.Upgraded || r.Serving != 2 || len(told) == 0 || folder() != "2" {
			t.Errorf("upgrade: %+v, runs in %s", r, folder())
		}
		for _, want := range []string{"1", "2", "1"} {
			if r, _ := harness.Ask(t, c, control.Request{Do: control.Rollback}); r.Outcome != control.Upgraded || folder() != want || r.Unchanged {
				t.Errorf("rollback: %+v, runs in %s and not in %s", r, folder(), want)
			}
		}
	})
	if err := os.RemoveAll(filepath.Join(dir, "2")); err != nil {
		t.Fatal(err)
	}
	if r, _ := harness.Ask(t, c, control.Request{Do: control.Rollback}); r.Outcome != control.Failed || r.Serving != 5 || !strings.Contains(r.Why, "cannot go back to directory") {
		t.Errorf("rollback to what is gone: %+v", r)
	}
	s.Stop()
}

// TestUpgradeToWhatRunsSaysSo: who has deployed something learns that grace has not found it.
func TestUpgradeToWhatRunsSaysSo(t *testing.T) {
	t.Parallel()
	s, c := named(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	r, told := harness.Ask(t, c, control.Request{Do: control.Upgrade})
	same := func(r control.Report) bool {
		return r.Text == "upgraded" && strings.HasPrefix(r.Why, "the new generation runs the same executable in the same directory as generation 1: "+harness.AppBinary())
	}
	if r.Outcome != control.Upgraded || !r.Unchanged || !slices.ContainsFunc(told, same) {
		t.Errorf("%+v, %+v", r, told)
	}
	r, _ = harness.Ask(t, c, control.Request{Do: control.Upgrade, Command: []string{harness.AppBinary(), "-delay", "1ms"}})
	if r.Outcome != control.Upgraded || r.Unchanged {
		t.Errorf("another command: %+v", r)
	}
	if now := harness.Status(t, c); !now.Upgrades[0].Unchanged || now.Upgrades[1].Unchanged {
		t.Errorf("%+v", now.Upgrades)
	}
	s.Stop()
}

// TestMovedLinkWithoutPWD, as systemd's WorkingDirectory= leaves it.
func TestMovedLinkWithoutPWD(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, release := range []string{"1", "2"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, release), 0o755), os.Link(harness.AppBinary(), filepath.Join(dir, release, "app"))); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "current")
	if err := os.Symlink("1", link); err != nil {
		t.Fatal(err)
	}
	s := harness.StartWith(t, func(c *exec.Cmd) {
		c.Path, c.Args = "/usr/bin/env", append([]string{"env", "-u", "PWD", harness.GraceBinary()}, c.Args[1:]...)
		c.Dir = link
	}, "--listen", "web=127.0.0.1:0", "--", "./app")
	s.AwaitReady(1)
	s.Upgrade(2) // nothing was moved
	if err := errors.Join(os.Remove(link), os.Symlink("2", link)); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGHUP)
	if e := s.AwaitGeneration("upgrade failed, generation 2 still serves", 3); !strings.Contains(e.Why, "--chdir "+link) {
		t.Errorf("the reason is %q", e.Why)
	}
	s.Stop()
}

// TestManyClientsAskDuringUpgrades: some of them leave before they have an answer.
func TestManyClientsAskDuringUpgrades(t *testing.T) {
	const clients = 100
	s, c := named(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	_, path := harness.Client(t, harness.Status(t, c).Name)
	harness.UnderLoad(t, load.Config{Addr: s.Address("web"), Clients: harness.EveryKind}, func() {
		var wg sync.WaitGroup
		for n := range clients {
			wg.Go(func() {
				own := control.NewClient(path)
				defer own.Close()
				switch n % 4 {
				case 0:
					if r, _ := harness.Ask(t, own, control.Request{Do: control.Upgrade}); r.Outcome != control.Upgraded || r.Serving < r.Generation {
						t.Errorf("upgrade: %+v", r)
					}
				case 1: // asks and does not read
					if answer, err := own.Ask(t.Context(), control.Request{Do: control.Upgrade}); err != nil {
						t.Error(err)
					} else {
						defer answer.Close()
					}
				default:
					for range 5 {
						if now := harness.Status(t, own); now.Current == 0 || len(now.Generations) == 0 {
							t.Errorf("status: %+v", now)
						}
					}
				}
			})
		}
		wg.Wait()
	})
	now := harness.Status(t, c)
	if now.Restarts+now.Crashes > 0 || now.Listeners[0].Address != s.Address("web") || *now.Listeners[0].Queue < 0 {
		t.Errorf("status: %+v", now)
	}
	t.Logf("%d generations for %d requests", now.Current, clients/2)
	if r, _ := harness.Ask(t, c, control.Request{Do: control.Stop}); r.Outcome != control.Stopped {
		t.Errorf("stop: %+v", r)
	}
	s.Ends(0)
	if _, err := os.Stat(path); err == nil {
		t.Error("the control socket is still there")
	}
}

func TestStatusShowsWhatRuns(t *testing.T) {
	s, c := named(t, "--instances", "2", "--settle", "1h", "--", harness.AppBinary(), "-addr", freeport.Address(t), "-take", "handoff")
	now := harness.Status(t, c)
	if len(now.Generations) != 1 || len(now.Generations[0].Instances) != 2 || now.Generations[0].Connections == nil || len(now.Listeners) != 1 || now.Listeners[0].Kind != "captured" {
		t.Fatalf("%+v", now)
	}
	for _, i := range now.Generations[0].Instances {
		if i.Phase != "ready" || i.Memory < 1<<20 || i.PID == 0 {
			t.Errorf("%+v", i)
		}
	}
	s.Signal(1)
	s.AwaitGeneration("generation ready", 2)
	now = harness.Status(t, c)
	if now.State != "upgrading" || now.Generations[0].Phase != "settling" || len(now.Listeners) != 2 {
		t.Errorf("%+v", now)
	}
	s.Stop()
}

func TestHooksOfARealUpgrade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := filepath.Join(dir, "told")
	var hooks []string
	for _, event := range []string{"serving", "upgrading", "upgraded", "failed", "drained", "stopping"} {
		hooks = append(hooks, "--on", event+`=echo "$GRACE_EVENT $GRACE_GENERATION" >> `+told)
	}
	s, c := named(t, append(hooks, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())...)
	harness.Ask(t, c, control.Request{Do: control.Upgrade, Command: []string{"/none"}})
	harness.Ask(t, c, control.Request{Do: control.Upgrade})
	s.AwaitGeneration("generation ended", 1)
	s.Stop()
	got, err := os.ReadFile(told)
	want := "serving 1\nupgrading 2\nfailed 2\nupgrading 3\nupgraded 3\ndrained 1\nstopping \ndrained 3\n"
	if err != nil || string(got) != want {
		t.Errorf("the hooks were told %q (%v), and not %q", got, err, want)
	}
}
