package main

import (
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
func (b bench) drain() {
	t := newTable(fmt.Sprintf("The drain of an app with a linger of %v, in ms: median (min..max)", drainLinger),
		"\tclients ask each second\t\tclients are silent")
	defer t.end()
	for _, connections := range []int{12, 1_000, 10_000} {
		t.line("%d connections\t%v\t%v", connections, b.drainOften(connections, drainPause), b.drainOften(connections, 0))
	}
}

func (b bench) drainOften(connections int, every time.Duration) (took series) {
	for range drainRounds {
		took.addTime(b.drainOnce(connections, every))
	}
	return took
}

// drainOnce counts from the readiness of the new generation to the end of the old one.
func (b bench) drainOnce(connections int, every time.Duration) time.Duration {
	s := b.supervise(nil, "-linger", drainLinger.String())
	defer s.stop()
	crowd := s.invite(connections, every)
	defer crowd.leave()
	s.hangUp()
	ready := s.awaitReady()
	return s.awaitEnd().Read.Sub(ready.Read)
}
