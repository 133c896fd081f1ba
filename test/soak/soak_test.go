package soak

import (
	"flag"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

var (
	upgrades = flag.Uint64("soak.upgrades", 24, "replace the apps at least so often, together")
	requests = flag.Uint64("soak.requests", 4000, "send at least so many requests, together")
	page     = flag.String("soak.page", "", "write the result into this file")
)

// Of so many upgrades of an app, one comes after grace was killed, and one after a reexec.
const (
	round    = 25
	killed   = 2
	reexeced = 3
)

// soak is what all apps have to reach together.
type soak struct {
	begun    time.Time
	upgrades atomic.Uint64
	requests []atomic.Uint64 // by app
	results  []result
}

// result is what one app went through.
type result struct {
	app                      string
	upgrades, kills, reexecs int
	tally                    load.Tally
	first, last              growth
}

func (s *soak) over() bool {
	var sent uint64
	for i := range s.requests {
		sent += s.requests[i].Load()
	}
	return s.upgrades.Load() >= *upgrades && sent >= *requests
}

func TestSoak(t *testing.T) {
	all := apps()
	s := &soak{begun: time.Now(), requests: make([]atomic.Uint64, len(all)), results: make([]result, len(all))}
	t.Run("apps", func(t *testing.T) {
		for n, a := range all {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				a.require(t)
				s.results[n] = s.replace(t, a, &s.requests[n])
			})
		}
	})
	if *page != "" && !t.Failed() {
		s.write(t, *page)
	}
}

// replace upgrades one app until all of them have come far enough.
func (s *soak) replace(t *testing.T, a app, sent *atomic.Uint64) result {
	t.Helper()
	address := freeport.Address(t)
	d := harness.StartToKill(t, a.arguments(t, address)...)
	d.AwaitReady(1)
	c := load.Config{Addr: address, ThinkMin: time.Millisecond, ThinkMax: 20 * time.Millisecond}
	a.clients(&c)
	l, err := load.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	r := result{app: a.name}
	for !t.Failed() && (r.upgrades <= reexeced || !s.over()) {
		d.Command("upgrade")
		r.upgrades++
		s.upgrades.Add(1)
		r.disturb(d)
		r.measure(t, d)
		sent.Store(l.Snapshot().Requests())
	}
	r.tally = l.Stop()
	r.judge(t)
	d.AwaitOneGeneration()
	d.End()
	return r
}

// disturb kills grace now and then, or has it replaced.
func (r *result) disturb(d *harness.KilledGrace) {
	switch r.upgrades % round {
	case killed:
		d.Kill()
		d.Again()
		r.kills++
	case reexeced:
		d.Command("reexec")
		r.reexecs++
	}
}

func (r *result) judge(t *testing.T) {
	t.Helper()
	if r.tally.Failures() > 0 || r.tally.Requests() == 0 {
		t.Errorf("of %d requests %d failed: %v, first %v", r.tally.Requests(), r.tally.Failures(), r.tally.ByFailure(), r.tally.First)
	}
	t.Logf("%d upgrades, %d kills of grace, %d reexecs, %d requests, %d failed; %v at first, %v at the end", r.upgrades, r.kills, r.reexecs, r.tally.Requests(), r.tally.Failures(), r.first, r.last)
}
