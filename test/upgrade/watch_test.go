package upgrade

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/test/harness"
)

// A change of a source upgrades, a broken one leaves the old version serving and says why, and its repair upgrades.
func TestChangeUpgrades(t *testing.T) {
	t.Parallel()
	dir, beside := t.TempDir(), t.TempDir()
	save := func(text string) { // in one step, so that it is one change however slow the test is
		t.Helper()
		harness.Write(t, dir, ".source.swp", text, 0o644)
		harness.Write(t, dir, "4913", "", 0o644)
		if err := os.Rename(harness.Write(t, beside, "source", text, 0o644), filepath.Join(dir, "source")); err != nil {
			t.Fatal(err)
		}
	}
	harness.Write(t, dir, "source", "true\n", 0o644)
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--chdir", dir, "--watch", ".", "--watch-ignore", "*.log", "--",
		"sh", "-c", ". ./source; echo built >>build.log; exec "+harness.AppBinary())
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: s.Address("web"), Clients: harness.EveryKind}, func() {
		save("true # again\n")
		s.AwaitReady(2)
		save("echo source:1: syntax error; exit 9\n")
		if e := s.AwaitMessage("upgrade failed, generation 2 still serves"); !strings.Contains(e.Why, "exit status 9") {
			t.Errorf("the reason is %s", e.Why)
		}
		s.AwaitLine("source:1: syntax error")
		save("true\n")
		s.AwaitReady(4)
	})
	changes := 0
	for _, e := range s.Entries() {
		if e.Message == "files changed" {
			changes++
			if !strings.Contains(e.Why, "source") || strings.Contains(e.Why, "swp") || strings.Contains(e.Why, "build.log") {
				t.Errorf("the log says %s", e)
			}
		}
	}
	if changes != 3 {
		t.Errorf("%d changes were seen", changes)
	}
	s.Stop()
}
