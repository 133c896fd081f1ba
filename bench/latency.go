//go:build bench && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/load"
)

// rhythm is how upgrades follow each other; the next begins when the last is over, and not before every has passed.
type rhythm struct {
	name  string
	never bool
	every time.Duration
}

var rhythms = []rhythm{
	{name: "no upgrades", never: true},
	{name: "one a second", every: time.Second},
	{name: "back to back"},
}

const (
	latencyRounds = 5
	latencyTime   = 4 * time.Second
)

var latencyLoad = map[load.Kind]int{load.NewConnection: 8, load.KeepAliveGet: 8}

// latency compares how long requests take while upgrades go on with how long they take without any.
func (b bench) latency() (err error) {
	s, err := b.supervise(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	all := make([]stretch, len(rhythms))
	for range latencyRounds {
		for i, r := range rhythms {
			if err := all[i].measure(s, r); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	t := newTable(fmt.Sprintf("Requests of %d clients, latency in ms: median of %d stretches of %s (min..max)",
		latencyLoad[load.NewConnection]+latencyLoad[load.KeepAliveGet], latencyRounds, latencyTime),
		"upgrades\ta second\trequests a second\tfailed\tp50\t\tp99\t\tp99, ratio to none\t\tmax")
	defer t.end()
	for i, r := range rhythms {
		m := all[i]
		t.line("%s\t%.1f\t%.0f\t%d\t%v\t%v\t%v\t%v", r.name, m.upgrades.median(), m.requests.median(), m.failed,
			m.p50, m.p99, m.p99.over(all[0].p99), m.max)
	}
	return nil
}

// stretch is what was measured with one rhythm.
type stretch struct {
	upgrades, requests series // a second
	p50, p99, max      series
	failed             uint64
}

func (m *stretch) measure(s *supervised, r rhythm) error {
	l, err := load.Start(context.Background(), load.Config{Addr: s.address, Clients: latencyLoad, ThinkMax: 8 * time.Millisecond})
	if err != nil {
		return err
	}
	begun := time.Now()
	upgrades, err := r.keep(s, begun.Add(latencyTime))
	took := time.Since(begun).Seconds()
	tally := l.Stop()
	if tally.Failures() > 0 {
		fmt.Println(tally)
	}
	latency := tally.Latency(load.Outside)
	m.upgrades.add(float64(upgrades) / took)
	m.requests.add(float64(tally.Requests()) / took)
	m.failed += tally.Failures()
	m.p50.add(milliseconds(latency, 50))
	m.p99.add(milliseconds(latency, 99))
	m.max.add(milliseconds(latency, 100))
	return err
}

func milliseconds(h *hdrhistogram.Histogram, percent float64) float64 {
	return float64(h.ValueAtQuantile(percent)) / 1000
}

// keep upgrades until the end, and returns how often, when the last old generation is gone.
func (r rhythm) keep(s *supervised, end time.Time) (int, error) {
	if r.never {
		time.Sleep(time.Until(end))
		return 0, nil
	}
	for n := 0; ; n++ {
		begun, err := s.hangUp()
		if err == nil {
			_, err = s.awaitReady()
		}
		if err != nil {
			return n, err
		}
		next := begun.Add(r.every)
		if !time.Now().Before(end) || next.After(end) {
			_, err := s.await("generation ended", s.generation-1)
			return n + 1, err
		}
		time.Sleep(time.Until(next))
	}
}
