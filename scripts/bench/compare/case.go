package compare

import (
	"fmt"
	"time"
)

// scenario is one thing that is done to every tool.
type scenario struct {
	name    string
	about   string
	endings bool // with each ending, or with the usual one only
	rounds  int  // at most; as many as asked for when 0
	delay   time.Duration
	fault   fault
	play    func(*stage) error
}

// usual is what most servers do, and what the scenarios have that are not about the end.
const usual = byShutdown

const (
	spacedName = "spaced"
	burstName  = "burst"
	backName   = "back to back"
	slowName   = "slow start"
)

func scenarios() []scenario {
	return []scenario{
		{name: spacedName, about: "two upgrades, each followed by four seconds", endings: true, play: playSpaced},
		{name: backName, about: "eight upgrades, each as soon as the one before it serves", rounds: 2, play: playBackToBack},
		{name: burstName, about: "five versions, one each 100 ms, whether the one before it serves or not", rounds: 2, play: playBurst},
		{name: slowName, about: "an upgrade to a server that takes a second to start", rounds: 1, delay: time.Second, play: playSlow},
		{name: string(crashes), about: "a version that crashes at its start", rounds: 1, fault: crashes, play: playBad},
		{name: string(isNever), about: "a version that never serves, and does not end", rounds: 1, fault: isNever, play: playBad},
		{name: string(hangs), about: "a version that serves, but does not end when it is told to", rounds: 1, fault: hangs, play: playHang},
	}
}

// The times of the scenarios.
const (
	calmTime   = 2 * time.Second // of which the latencies are compared with those of the upgrades
	spacing    = 4 * time.Second // longer than grace takes with its --settle and --farewell
	burstGap   = 100 * time.Millisecond
	serveTime  = 10 * time.Second // in which a version has to serve; after that its upgrade is lost
	badTime    = 5 * time.Second  // longer than readyTime
	endTime    = 6 * time.Second  // for the end of what was replaced
	hangTime   = 8 * time.Second  // for the end of what hangs
	spacedMany = 2
	backMany   = 8
	burstMany  = 5
	bareMany   = 2
)

func playSpaced(s *stage) error { return s.upgrades(spacedMany, spacing) }

func playSlow(s *stage) error { return s.upgrades(1, spacing) }

func playBackToBack(s *stage) error { return s.upgrades(backMany, 0) }

// upgrades are measured beside the calm time before them.
func (s *stage) upgrades(times int, pause time.Duration) error {
	if err := s.calm(); err != nil {
		return err
	}
	before := usageOf(s.tool.supervisor())
	for range times {
		if err := s.replace(none); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	time.Sleep(calmTime - min(pause, calmTime))
	s.result.Upgrades = latenciesOf(s.clients.lap())
	s.awaitEnds()
	s.result.use(before, usageOf(s.tool.supervisor()), times)
	return nil
}

// playBurst deploys on a schedule. Each request is sent when the one before it was taken.
func playBurst(s *stage) error {
	due := make(chan struct{}, burstMany)
	asked := make(chan error, 1)
	go func() { asked <- s.askEach(due) }()
	for range burstMany {
		if err := s.deploy(none); err != nil {
			return err
		}
		due <- struct{}{}
		time.Sleep(burstGap)
	}
	close(due)
	_, err := awaitVersion(s.address, s.number, serveTime)
	s.result.NewServes = err == nil
	s.told(asked)
	s.awaitEnds()
	s.result.Asked = burstMany
	s.result.Served = len(s.clients.generations()) - 1 // the first version was not asked for
	return nil
}

// playBad deploys a version with a fault, and a good one when the bad one has done its harm.
func playBad(s *stage) error {
	if err := s.deploy(s.fault); err != nil {
		return err
	}
	asked := s.ask()
	time.Sleep(badTime)
	s.told(asked)
	a, err := ask(s.address)
	s.result.OldServes = err == nil && a.generation < s.number
	err = s.replace(none)
	s.result.Recovers = s.result.NewServes
	return err
}

// playHang replaces a version that does not end.
func playHang(s *stage) error {
	if err := s.replace(s.fault); err != nil {
		return err
	}
	hanging, err := awaitVersion(s.address, s.number, serveTime)
	if err != nil {
		return fmt.Errorf("the version that is to hang does not serve: %w", err)
	}
	time.Sleep(spacing) // the version before it has ended, and clients use this one
	if err := s.replace(none); err != nil {
		return err
	}
	time.Sleep(hangTime)
	s.result.OldServes = alive(hanging.pid)
	return nil
}
