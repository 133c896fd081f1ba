package main

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/load"
)

// rhythm is what happens again and again while requests are sent; it begins anew when the last time is over, and not
// before every has passed.
type rhythm struct {
	name  string
	deed  func(bench, *supervised) // nil for nothing
	every time.Duration
}

var rhythms = []rhythm{
	{name: "nothing"},
	{name: "an upgrade a second", deed: bench.upgrade, every: time.Second},
	{name: "upgrades back to back", deed: bench.upgrade},
	// How much of it is only that the processors are busy with starting programs.
	{name: "no upgrades, bare starts back to back", deed: bench.startBeside},
}

func (bench) upgrade(s *supervised) {
	s.hangUp()
	s.awaitReady()
}

func (b bench) startBeside(*supervised) { b.bareStart(nil) }

const (
	latencyRounds = 5
	latencyTime   = 4 * time.Second
)

var latencyLoad = map[load.Kind]int{load.NewConnection: 8, load.KeepAliveGet: 8}

// latency compares how long requests take while upgrades go on with how long they take without any.
func (b bench) latency() {
	s := b.supervise(nil)
	defer s.stop()
	all := make([]stretch, len(rhythms))
	for range latencyRounds {
		for i, r := range rhythms {
			all[i].measure(b, s, r)
		}
	}
	t := newTable(fmt.Sprintf("Requests of %d clients, latency in ms: median of %d stretches of %s (min..max)",
		latencyLoad[load.NewConnection]+latencyLoad[load.KeepAliveGet], latencyRounds, latencyTime),
		"meanwhile\ta second\trequests a second\tfailed\tp50\t\tp99\t\tp99, ratio to nothing\t\tmax")
	defer t.end()
	for i, r := range rhythms {
		m := all[i]
		t.line("%s\t%.1f\t%.0f\t%d\t%v\t%v\t%v\t%v", r.name, m.deeds.median(), m.requests.median(), m.failed,
			m.p50, m.p99, m.p99.over(all[0].p99), m.max)
	}
}

// stretch is what was measured with one rhythm.
type stretch struct {
	deeds, requests series // a second
	p50, p99, max   series
	failed          uint64
}

func (m *stretch) measure(b bench, s *supervised, r rhythm) {
	l := must(load.Start(context.Background(), load.Config{Addr: s.address, Clients: latencyLoad, ThinkMax: 8 * time.Millisecond}))
	begun, generation := time.Now(), s.generation
	deeds := r.keep(b, s, begun.Add(latencyTime))
	took := time.Since(begun).Seconds()
	tally := l.Stop()
	if s.generation > generation {
		s.awaitEnd()
	}
	if tally.Failures() > 0 {
		fmt.Println(tally)
	}
	latency := tally.Latency(load.Outside)
	m.deeds.add(float64(deeds) / took)
	m.requests.add(float64(tally.Requests()) / took)
	m.failed += tally.Failures()
	m.p50.add(milliseconds(latency, 50))
	m.p99.add(milliseconds(latency, 99))
	m.max.add(milliseconds(latency, 100))
}

func milliseconds(h *hdrhistogram.Histogram, percent float64) float64 {
	return float64(h.ValueAtQuantile(percent)) / 1000
}

// keep returns at the end, or when the last deed is over, and says how many there were.
func (r rhythm) keep(b bench, s *supervised, end time.Time) int {
	if r.deed == nil {
		time.Sleep(time.Until(end))
		return 0
	}
	for n := 0; ; n++ {
		next := time.Now().Add(r.every)
		if next.After(end) {
			return n
		}
		r.deed(b, s)
		time.Sleep(time.Until(next))
	}
}
