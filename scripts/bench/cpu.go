package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// cost is the CPU time of grace for an upgrade of one kind.
type cost struct {
	name    string
	aim     float64 // ms at most; 0 for none
	rounds  int
	upgrade int // in one round
	pause   time.Duration
	drains  bool // for the time of a slow request
	held    bool
	waiting series // sockets in TIME_WAIT
	took    series
}

// rested is long enough for what grace does late, such as reaping, so that an upgrade is charged for it.
const rested = 200 * time.Millisecond

// flatAim leaves room for what differs between two runs of the same.
const flatAim = 1.2

func upgradeCosts() []*cost {
	return []*cost{
		{name: "held", aim: 3, rounds: 10, upgrade: 1, pause: rested, held: true},
		{name: "held, back to back", rounds: 4, upgrade: 10, pause: rested, held: true},
		{name: "captured, the old generation drains for 2 s", aim: 15, rounds: 5, upgrade: 1, pause: rested, drains: true},
		{name: "captured, back to back", rounds: 4, upgrade: 10, pause: rested},
	}
}

const waitingSockets = 20_000

// cpu measures what an upgrade takes from the machine in grace itself, with few sockets in TIME_WAIT and with many.
func (b bench) cpu() {
	held, captured := b.supervise(nil), b.superviseCaptured(unsettled)
	defer held.stop()
	defer captured.stop()
	few, many := upgradeCosts(), upgradeCosts()
	measureCosts(few, held, captured)
	leaveWaiting(waitingSockets)
	measureCosts(many, held, captured)
	printCosts(few, many, b.figures)
	fmt.Printf("The same of the smallest supervisor, held: %v\n", b.leastCost())
}

// leastCost is what an upgrade takes of a supervisor that does nothing else.
func (b bench) leastCost() (took series) {
	s := b.startSmallest(nil)
	defer s.stop()
	for range 10 {
		before := cpuOf(s.supervisor)
		s.replace()
		time.Sleep(rested)
		took.add(float64(cpuOf(s.supervisor)-before) / float64(time.Millisecond))
	}
	return took
}

func measureCosts(costs []*cost, held, captured *supervised) {
	for _, n := range rand.Perm(len(costs)) {
		c, s := costs[n], captured
		if c.held {
			s = held
		}
		for range c.rounds {
			c.measure(s)
		}
	}
}

func (c *cost) measure(s *supervised) {
	c.waiting.add(float64(socketsWaiting()))
	if c.drains {
		defer keepBusy(s.address)()
	}
	before := cpuOf(s.Cmd.Process.Pid)
	for range c.upgrade {
		s.hangUp()
		s.awaitReady()
		s.awaitEnd()
	}
	time.Sleep(c.pause)
	c.took.add(float64(cpuOf(s.Cmd.Process.Pid)-before) / float64(time.Millisecond) / float64(c.upgrade))
}

var keptConnections = load.Config{
	Clients:  map[load.Kind]int{load.KeepAliveGet: 20},
	ThinkMin: 50 * time.Millisecond, ThinkMax: 150 * time.Millisecond,
}

// keepBusy begins a slow request and keep-alive ones, which end when the caller says so.
func keepBusy(address string) (end func()) {
	cfg := keptConnections
	cfg.Addr = address
	clients := must(load.Start(context.Background(), cfg))
	time.Sleep(cfg.ThinkMax) // each has asked once
	conn := askSlowly(address)
	return func() {
		_, err := io.Copy(io.Discard, conn)
		conn.Close()
		tally := clients.Stop()
		check(err)
		if tally.Failures() > 0 {
			fmt.Println(tally)
		}
	}
}

// askSlowly begins a request that takes two seconds.
func askSlowly(address string) net.Conn {
	conn := must(net.Dial("tcp", address))
	must(io.WriteString(conn, "GET /slow HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"))
	must(conn.Read(make([]byte, 1)))
	return conn
}

func printCosts(few, many []*cost, figures *summary) {
	t := newTable("CPU of grace for an upgrade, until the old generation has ended, in ms: median (min..max)",
		fmt.Sprintf("\ttime\t\tsockets in TIME_WAIT\twith %d more\t\tsockets in TIME_WAIT\tratio\tat most, ms", waitingSockets))
	defer t.end()
	for n, c := range few {
		flat := many[n].took.median() / c.took.median()
		t.line("%s\t%v\t%.0f\t%v\t%.0f\t%.2f\t%s", c.name, c.took, c.waiting.median(), many[n].took, many[n].waiting.median(), flat, orNone(c.aim))
		if c.aim > 0 {
			figures.add("CPU of an upgrade, "+c.name, c.aim, c.took.median(), "ms")
			figures.add(fmt.Sprintf("the same with %d more sockets in TIME_WAIT", waitingSockets), flatAim, flat, "x")
		}
	}
}
