package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/load"
)

// rhythm is what happens again and again while requests are sent; it begins anew when the last time is over, and not
// before every has passed.
type rhythm struct {
	name  string
	at    func() string // the address that gets the requests
	deed  func()        // nil for nothing
	end   func()        // what belongs to the last deed
	every time.Duration
	paced bool // at the rate of upgrades back to back, instead of every
}

// The rhythms that others are compared with.
const (
	calm = iota
	everySecond
	backToBack
	bareStarts
	idealOverlaps
	rhythms
)

func (b bench) rhythms(s *supervised, best *ideal) [rhythms]rhythm {
	address, generation := func() string { return s.address }, s.generation
	upgrade := func() { s.hangUp(); s.awaitReady() }
	end := func() {
		if s.generation > generation {
			s.awaitEnd()
		}
	}
	return [rhythms]rhythm{
		calm:        {name: "nothing", at: address},
		everySecond: {name: "an upgrade a second", at: address, deed: upgrade, end: end, every: time.Second},
		backToBack:  {name: "upgrades back to back", at: address, deed: upgrade, end: end},
		// How much of it is only that the processors are busy with starting programs. No client has to connect again for
		// these, as all have to at an upgrade.
		bareStarts: {name: "no upgrades, bare starts at the same rate", at: address, deed: func() { b.bareStart(nil) }, paced: true},
		// What an upgrade costs clients that have to connect again, without grace.
		idealOverlaps: {name: "ideal overlaps at the same rate", at: best.serves, deed: func() { best.replace() }, paced: true},
	}
}

const (
	latencyRounds = 5
	latencyTime   = 4 * time.Second
)

var latencyLoad = map[load.Kind]int{load.NewConnection: 8, load.KeepAliveGet: 8}

// latency compares how long requests take while upgrades go on with how long they take without any.
func (b bench) latency() {
	s, best := b.supervise(nil), b.startIdeal(nil)
	defer s.stop()
	defer best.stop()
	all, of := new([rhythms]stretch), b.rhythms(s, best)
	for range latencyRounds {
		for _, group := range shuffled([][]int{{calm}, {everySecond}, {backToBack, bareStarts, idealOverlaps}}) {
			measureGroup(group, of, all)
		}
	}
	printLatencies(of, all)
	b.figures.add("p99 of requests, an upgrade a second, beside none", 1.1, all[everySecond].p99.over(all[calm].p99).median(), "x")
	b.figures.add("p99 of requests, upgrades back to back, beside as many bare starts", 1.2, all[backToBack].p99.over(all[bareStarts].p99).median(), "x")
}

func shuffled(groups [][]int) [][]int {
	rand.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	return groups
}

// measureGroup measures rhythms of which the later ones take the rate of the first.
func measureGroup(group []int, of [rhythms]rhythm, all *[rhythms]stretch) {
	for _, n := range group {
		r := of[n]
		if r.paced {
			r.every = all[backToBack].pace()
		}
		all[n].measure(r)
	}
}

func printLatencies(of [rhythms]rhythm, all *[rhythms]stretch) {
	t := newTable(fmt.Sprintf("Requests of %d clients, latency in ms: median of %d stretches of %s (min..max)",
		latencyLoad[load.NewConnection]+latencyLoad[load.KeepAliveGet], latencyRounds, latencyTime),
		"meanwhile\ta second\trequests a second\tfailed\tp50\t\tp99\t\tp99, ratio to nothing\t\tto bare starts\t\tmax")
	defer t.end()
	for n, r := range of {
		m := &all[n]
		t.line("%s\t%.1f\t%.0f\t%d\t%v\t%v\t%v\t%v\t%v", r.name, m.deeds.median(), m.requests.median(), m.failed,
			m.p50, m.p99, m.p99.over(all[calm].p99), m.p99.over(all[bareStarts].p99), m.max)
	}
}

// stretch is what was measured with one rhythm.
type stretch struct {
	deeds, requests series // a second
	p50, p99, max   series
	failed          uint64
}

// pace is the time from one deed to the next in the last stretch.
func (m *stretch) pace() time.Duration {
	return time.Duration(float64(time.Second) / m.deeds[len(m.deeds)-1])
}

func (m *stretch) measure(r rhythm) {
	l := must(load.Start(context.Background(), load.Config{Addr: r.at(), Clients: latencyLoad, ThinkMax: 8 * time.Millisecond}))
	begun := time.Now()
	deeds := r.keep(begun.Add(latencyTime))
	took := time.Since(begun).Seconds()
	tally := l.Stop()
	if r.end != nil {
		r.end()
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

// keep returns at the end, or when the last deed is over, and says how many there were. A deed that takes too long is made
// up for by the next ones, so that the rate holds.
func (r rhythm) keep(end time.Time) int {
	if r.deed == nil {
		time.Sleep(time.Until(end))
		return 0
	}
	for n, next := 0, time.Now(); ; n++ {
		if next = next.Add(r.every); next.After(end) || time.Now().After(end) {
			return n
		}
		r.deed()
		time.Sleep(time.Until(next))
	}
}
