package main

import (
	"errors"
	"fmt"
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
	t := newTable(fmt.Sprintf("The drain of an app with a linger of %v, in ms: median (min..max)", drainLinger),
		"\tclients ask each second\t\tclients are silent")
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
		t.line("%d connections\t%v\t%v", connections, asking, silent)
	}
	return nil
}

func (b bench) drainOften(connections int, every time.Duration) (took series, err error) {
	for range drainRounds {
		one, err := b.drainOnce(connections, every)
		if err != nil {
			return nil, err
		}
		took.addTime(one)
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
	return ended.Read.Sub(ready.Read), err
}
