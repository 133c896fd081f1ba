package reexec

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// Who takes over has the options that the file gave at the start, whatever is in it by then, and those of the command line beside it.
func TestSuccessorHasTheOptionsOfTheStart(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := fmt.Sprintf("listen = ['web=127.0.0.1:0']\ninstances = 2\ndrain-timeout = '7s'\ncommand = ['%s']\n", harness.AppBinary())
			harness.Write(t, dir, "grace.toml", config, 0o644)
			d := harness.StartForReexec(t, way, "--config", filepath.Join(dir, "grace.toml"), "--drain-timeout", "5s")
			harness.Write(t, dir, "grace.toml", "no TOML", 0o644)
			for n := 1; n <= 2; n++ {
				d.Reexec()
				d.Upgrade(1 + n)
			}
			if started := d.AwaitNth("instance started", 6); started.Generation != 3 {
				t.Errorf("generation %d has the sixth instance", started.Generation)
			}
			if e := d.AwaitMessage("generation draining"); !strings.Contains(e.Text, `"within_ms":5000`) {
				t.Errorf("the log says %s", e.Text)
			}
			d.End()
		})
	}
}
