//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/test/harness"
)

// startGets is GETs on new connections and on those that are kept.
func startGets(t *testing.T, addr string) *load.Load {
	t.Helper()
	clients := map[load.Kind]int{load.NewConnection: 5, load.KeepAliveGet: 20}
	return startLoad(t, load.Config{Addr: addr, Clients: clients, ThinkMax: 20 * time.Millisecond})
}

// startSlow is requests that take a second each, and do not keep in step.
func startSlow(t *testing.T, addr string) *load.Load {
	t.Helper()
	return startLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.Slow: 8}, ThinkMax: time.Second})
}

func checkTally(t *testing.T, name string, tally load.Tally) {
	t.Helper()
	t.Logf("%s: %d requests, %d failed", name, tally.Requests(), tally.Failures())
	if tally.Requests() == 0 || tally.Failures() > 0 {
		t.Errorf("%s: %v", name, tally)
	}
}

// checkSpan wants most generations to have answered slow requests when their successors served already.
func checkSpan(t *testing.T, tally load.Tally, g *harness.Grace) {
	t.Helper()
	spanned := 0
	for source, answers := range tally.Answers {
		successor := g.ReadySince(source.Generation + 1)
		if !successor.IsZero() && answers.Last.After(successor) {
			spanned++
		}
	}
	t.Logf("%d of %d generations finished slow requests after their successors had begun", spanned, *upgrades)
	if spanned <= *upgrades/2 {
		t.Error("too few slow requests spanned an upgrade")
	}
}
