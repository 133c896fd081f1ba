//go:build bench && linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	drainRounds = 5
	// drainLinger is longer than the pause of the clients that ask, so that none of them is lost.
	drainLinger = 1500 * time.Millisecond
	drainPause  = time.Second
)

// drain measures how long the replaced generation takes to let its clients go: those that ask each second, and those
// that are silent, which wait for the linger.
func (b bench) drain() error {
	t := newTable(fmt.Sprintf("the drain of an app with a linger of %v, in ms", drainLinger), "\tclients ask each second\tclients are silent")
	defer t.end()
	for _, connections := range []int{12, 1_000, 10_000} {
		asking, err := b.drainOften(connections, drainPause)
		if err != nil {
			return err
		}
		silent, err := b.drainOften(connections, 0)
		if err != nil {
			return err
		}
		t.line("%d connections\t%s\t%s", connections, spread(asking), spread(silent))
	}
	return nil
}

func (b bench) drainOften(connections int, every time.Duration) (took []float64, err error) {
	for range drainRounds {
		one, err := b.drainOnce(connections, every)
		if err != nil {
			return nil, err
		}
		took = append(took, float64(one.Microseconds())/1000)
	}
	return took, nil
}

// drainOnce counts from the readiness of the new generation to the end of the old one.
func (b bench) drainOnce(connections int, every time.Duration) (took time.Duration, err error) {
	s, err := b.supervise(nil, "-linger", drainLinger.String())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	crowd, err := s.invite(connections, every)
	defer func() {
		for _, c := range crowd {
			err = errors.Join(err, c.leave())
		}
	}()
	if err != nil {
		return 0, err
	}
	if _, err := s.hangUp(); err != nil {
		return 0, err
	}
	ready, err := s.awaitReady()
	if err != nil {
		return 0, err
	}
	ended, err := s.await("generation ended", s.generation-1)
	return ended.at.Sub(ready.at), err
}

func spread(times []float64) string {
	slices.Sort(times)
	return fmt.Sprintf("%.0f (%.0f..%.0f)", times[len(times)/2], times[0], times[len(times)-1])
}
