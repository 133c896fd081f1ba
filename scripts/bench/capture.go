package main

import (
	"context"
	"errors"
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

// capture compares an app that grace captures with the same one that it does not.
func (b bench) capture() error {
	return errors.Join(b.calls(), b.throughput())
}

// calls measures single system calls in the app, and grace with it from start to end.
func (b bench) calls() error {
	plain, bind, client := map[string]series{}, map[string]series{}, map[string]series{}
	for range captureRounds {
		for _, mode := range captures {
			took, err := b.callsOnce(mode)
			if err != nil {
				return err
			}
			plain[mode], bind[mode], client[mode] = append(plain[mode], took[0]), append(bind[mode], took[1]), append(client[mode], took[2])
		}
	}
	t := newTable("What capture costs: median (min..max)", "\t--capture off\t\t--capture on\t\tadded")
	defer t.end()
	t.line("a call that is not asked about, ns\t%v\t%v\t%v", plain["off"], plain["on"], plain["on"].minus(plain["off"]))
	t.line("socket, bind and close, ns\t%v\t%v\t%v", bind["off"], bind["on"], bind["on"].minus(bind["off"]))
	t.line("the same with port 0, as clients do, ns\t%v\t%v\t%v", client["off"], client["on"], client["on"].minus(client["off"]))
	return nil
}

// callsOnce needs no line about an app that is no server.
func (b bench) callsOnce(mode string) (took [3]float64, err error) {
	run := exec.Command(b.grace, "run", "--capture", mode, "--restart", "never", "--log-level", "error", "--", b.app, "-measure")
	out, err := run.Output()
	if err != nil {
		return took, err
	}
	_, err = fmt.Sscan(string(out), &took[0], &took[1], &took[2])
	return took, err
}

// throughput also compares the time until the app is ready.
func (b bench) throughput() error {
	requests, ready := map[string]series{}, map[string]series{}
	for range captureRounds {
		for _, mode := range captures {
			n, took, err := b.requestsOnce(mode)
			if err != nil {
				return err
			}
			requests[mode], ready[mode] = append(requests[mode], n), append(ready[mode], took)
		}
	}
	t := newTable("A server with 16 keep-alive clients: median (min..max)", "\t--capture off\t\t--capture on\t\tratio")
	defer t.end()
	t.line("requests a second\t%v\t%v\t%v", requests["off"], requests["on"], requests["on"].over(requests["off"]))
	t.line("ms from start to READY=1\t%v\t%v\t%v", ready["off"], ready["on"], ready["on"].over(ready["off"]))
	return nil
}

func (b bench) requestsOnce(mode string) (n, ready float64, err error) {
	addr, err := freeAddress()
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	s, err := b.begin([]string{"--capture", mode, "--ready", "notify"}, "-addr", addr)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	e, err := s.awaitReady()
	if err != nil {
		return 0, 0, err
	}
	l, err := load.Start(context.Background(), load.Config{Addr: addr, Clients: map[load.Kind]int{load.KeepAliveGet: 16}})
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(captureTime)
	tally := l.Stop()
	return float64(tally.Requests()) / captureTime.Seconds(), float64(e.Read.Sub(begun)) / float64(time.Millisecond), nil
}
