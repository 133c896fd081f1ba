package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// surgeRun is how the memory of an upgrade is measured.
type surgeRun struct {
	servers   string
	instances int
	rounds    int
}

func surgeFlags(args []string) (r surgeRun, chosenOnes []server, err error) {
	set := flag.NewFlagSet("surge", flag.ContinueOnError)
	set.StringVar(&r.servers, "servers", "puma,java", "which `servers` are measured, separated by commas, or all")
	set.IntVar(&r.instances, "instances", 4, "how many instances each has")
	set.IntVar(&r.rounds, "rounds", 5, "how often each is upgraded in each way")
	if err := set.Parse(args); err != nil {
		return r, nil, err
	}
	chosenOnes, err = chosen(r.servers)
	return r, chosenOnes, err
}

// surge measures the memory of all processes of an app during upgrades that double it, and during rolling ones, in turns.
func (b bench) surge(r surgeRun, servers []server) {
	fmt.Println(machine())
	t := newTable(fmt.Sprintf("Proportional memory (Pss) of %d instances and those beside them, MB: median (min..max)", r.instances),
		"server\t--max-surge\tserving\t\thighest in the upgrade\t\tratio\t\tmost processes\tan upgrade, s\t\trequests\tfailed")
	defer t.end()
	for _, s := range servers {
		full, one := surgeFigures{surge: "100%"}, surgeFigures{surge: "1"}
		for range r.rounds {
			r.upgrade(b, s, &full)
			r.upgrade(b, s, &one)
		}
		for _, f := range []surgeFigures{full, one} {
			t.line("%s\t%s\t%v\t%v\t%v\t%d\t%v\t%d\t%d", s.name, f.surge, f.serving, f.highest, f.highest.over(f.serving), f.processes, f.took, f.requests, f.failed)
		}
		t.line("%s\t1 beside 100%%\t\t\t%v", s.name, one.highest.over(full.highest))
	}
}

type surgeFigures struct {
	surge            string
	serving, highest series
	took             series // in seconds, from SIGHUP to the end of the last old instance
	processes        int
	requests, failed uint64
}

func (r surgeRun) upgrade(b bench, s server, f *surgeFigures) {
	folder := must(os.MkdirTemp("", "grace-bench-"))
	defer os.RemoveAll(folder)
	address := freeAddress()
	g := b.underGrace(s, must(s.install(folder, address)), "0s", "--instances", strconv.Itoa(r.instances), "--max-surge", f.surge)
	defer g.stop()
	clients := must(load.Start(context.Background(), load.Config{
		Addr: address, Answer: "hello\n", Clients: map[load.Kind]int{load.NewConnection: 4}, ThinkMax: 20 * time.Millisecond,
	}))
	time.Sleep(rest)
	serving, _ := memoryBelow(g.Cmd.Process.Pid)
	w := watchMemory(g.Cmd.Process.Pid)
	begun := g.hangUp()
	g.awaitReady()
	g.awaitEnd()
	f.took.add(time.Since(begun).Seconds())
	highest, processes := w.stop()
	f.serving.add(serving)
	f.highest.add(highest)
	f.processes = max(f.processes, processes)
	tally := clients.Stop()
	f.requests += tally.Requests()
	f.failed += tally.Failures()
}

// memoryWatch looks for the highest memory of the processes below one.
type memoryWatch struct {
	ending, ended chan struct{}
	highest       float64
	processes     int
}

const looks = 20 * time.Millisecond

func watchMemory(pid int) *memoryWatch {
	w := &memoryWatch{ending: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for {
			mb, n := memoryBelow(pid)
			w.highest, w.processes = max(w.highest, mb), max(w.processes, n)
			select {
			case <-w.ending:
				return
			case <-time.After(looks):
			}
		}
	}()
	return w
}

func (w *memoryWatch) stop() (highest float64, processes int) {
	close(w.ending)
	<-w.ended
	return w.highest, w.processes
}

// memoryBelow sums what the processes below one use. What several share counts once.
func memoryBelow(pid int) (mb float64, processes int) {
	for _, child := range children(pid) {
		// A process that ends meanwhile has no memory any more.
		if err := attempt(func() { mb += memoryOf(child).shared }); err == nil {
			processes++
		}
		more, n := memoryBelow(child)
		mb, processes = mb+more, processes+n
	}
	return mb, processes
}

func children(pid int) (pids []int) {
	for _, path := range must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))) {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that has ended
		}
		for _, number := range strings.Fields(string(text)) {
			pids = append(pids, must(strconv.Atoi(number)))
		}
	}
	return pids
}
