package lifecycle

import (
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// TestInstanceThatGrowsIsReplaced, the second time by the grace process that has adopted the app.
func TestInstanceThatGrowsIsReplaced(t *testing.T) {
	for _, way := range []string{"held", "captured"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s, addr := startToKill(t, way, "--max-memory", "100M")
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
				harness.Get(t, addr, "/grow")
				e := s.AwaitMessage("replacing an instance")
				if e.Instance != 1 || !strings.HasPrefix(e.Why, "the instance uses ") || !strings.HasSuffix(e.Why, "M of memory (--max-memory 100M)") {
					t.Errorf("%+v", e)
				}
				s.AwaitInstance("instance replaced", 1)
			})
			s.Kill()
			s.Again()
			s.AwaitOneGeneration()
			harness.Get(t, addr, "/grow")
			s.AwaitInstance("instance replaced", 2)
			s.End()
		})
	}
}

// startToKill runs the app at an address that is held or captured, which the flags have as ADDR.
func startToKill(t *testing.T, way string, flags ...string) (s *harness.KilledGrace, addr string) {
	t.Helper()
	addr = freeport.Address(t)
	app := []string{"--", harness.AppBinary(), "-addr", addr}
	for i := range flags {
		flags[i] = strings.ReplaceAll(flags[i], "ADDR", addr)
	}
	if way == "held" {
		app = append([]string{"--listen", addr}, app...)
	}
	s = harness.StartToKill(t, append(flags, app...)...)
	s.AwaitReady(1)
	return s, addr
}

// TestInstanceThatGrowsAfterAReexecAreReplaced: who carries on looks too.
func TestInstanceThatGrowsAfterAReexecIsReplaced(t *testing.T) {
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := harness.StartForReexec(t, way, "--listen", "web=127.0.0.1:0", "--max-memory", "100M", "--", harness.AppBinary())
			d.Reexec()
			harness.Get(t, d.Address("web"), "/grow")
			d.AwaitInstance("instance replaced", 1)
			d.End()
		})
	}
}
