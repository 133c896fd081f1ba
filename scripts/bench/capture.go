package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

const (
	captureRounds = 7
	captureTime   = 3 * time.Second
)

// captures are the two that are compared, in turns.
var captures = []string{"off", "on"}

// capture compares an app that grace captures with the same one that it does not: single system calls in the app, and a
// server under load.
func (b bench) capture() {
	b.calls()
	b.throughput()
}

// offAndOn measures in turns, and gives each figure without capture and with it.
func offAndOn(figures int, once func(mode string) []float64) (off, on []series) {
	all := map[string][]series{"off": make([]series, figures), "on": make([]series, figures)}
	for range captureRounds {
		for _, mode := range captures {
			for n, figure := range once(mode) {
				all[mode][n].add(figure)
			}
		}
	}
	return all["off"], all["on"]
}

func (b bench) calls() {
	off, on := offAndOn(3, b.callsOnce)
	t := newTable("What capture costs: median (min..max)", "\t--capture off\t\t--capture on\t\tadded")
	defer t.end()
	for n, what := range []string{"a call that is not asked about", "socket, bind and close", "the same with port 0, as clients do"} {
		t.line("%s, ns\t%v\t%v\t%v", what, off[n], on[n], on[n].minus(off[n]))
	}
}

// callsOnce needs no line about an app that is no server.
func (b bench) callsOnce(mode string) []float64 {
	run := exec.Command(b.grace, "run", "--capture", mode, "--restart", "never", "--log-level", "error", "--", b.app, "-measure")
	took := make([]float64, 3)
	must(fmt.Sscan(string(must(run.Output())), &took[0], &took[1], &took[2]))
	return took
}

// throughput also compares the time until the app is ready.
func (b bench) throughput() {
	off, on := offAndOn(2, b.requestsOnce)
	t := newTable("A server with 16 keep-alive clients: median (min..max)", "\t--capture off\t\t--capture on\t\tratio")
	defer t.end()
	for n, what := range []string{"requests a second", "ms from start to READY=1"} {
		t.line("%s\t%v\t%v\t%v", what, off[n], on[n], on[n].over(off[n]))
	}
}

func (b bench) requestsOnce(mode string) []float64 {
	addr, begun := freeAddress(), time.Now()
	s := b.begin([]string{"--capture", mode, "--ready", "notify"}, "-addr", addr)
	defer s.stop()
	ready := s.awaitReady().Read.Sub(begun)
	l := must(load.Start(context.Background(), load.Config{Addr: addr, Clients: map[load.Kind]int{load.KeepAliveGet: 16}}))
	time.Sleep(captureTime)
	return []float64{float64(l.Stop().Requests()) / captureTime.Seconds(), float64(ready) / float64(time.Millisecond)}
}
