package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

const manyRounds = 3

// many measures what grows with the number of listeners: the binds of an app, readiness after them, and status.
func (b bench) many() {
	t := newTable("An app with many listeners, ms: median (min..max)",
		"listeners\tbinds alone\t\tgeneration 1\t\tgeneration 2\t\tthen ready after\t\tCPU of grace\t\tstatus, captured\t\tCPU\t\tstatus, held\t\tCPU\t")
	defer t.end()
	for _, n := range []int{100, 300, 1000} {
		var m manyFigures
		for range manyRounds {
			b.bindAlone(n, &m)
			b.bindCaptured(n, &m)
			b.hold(n, &m)
		}
		t.line("%d\t%v\t%v\t%v\t%v\t%v\t%v\t%v\t%v\t%v", n, m.alone, m.first, m.second, m.after, m.cpu,
			m.captured.took, m.captured.cpu, m.held.took, m.held.cpu)
	}
}

type manyFigures struct {
	alone, first, second series // from before the first bind until after the last listen
	after                series // until grace sees that the second generation is ready
	cpu                  series // of grace, from the request for the upgrade until then
	captured, held       statusFigures
}

type statusFigures struct{ took, cpu series }

func (b bench) bindAlone(n int, m *manyFigures) {
	app := exec.Command(b.app, "-many", fmt.Sprint(n))
	log := must(app.StderrPipe())
	check(app.Start())
	var e gracelog.Entry
	line, err := bufio.NewReader(log).ReadBytes('\n')
	err = errors.Join(err, json.Unmarshal(line, &e), app.Process.Kill())
	_ = app.Wait() // it was killed
	check(err)
	m.alone.add(e.Took)
}

// bindCaptured measures two generations, and status while the first one serves.
func (b bench) bindCaptured(n int, m *manyFigures) {
	s := b.begin([]string{"--name", "bench-many"}, "-many", fmt.Sprint(n))
	defer s.stop()
	m.first.add(s.await("bound", 1).Took)
	b.status(s, &m.captured)
	before := cpuOf(s.Cmd.Process.Pid)
	s.hangUp()
	bound := s.await("bound", 2)
	ready := s.await("generation ready", 2)
	m.second.add(bound.Took)
	m.after.addTime(ready.Read.Sub(bound.Read))
	m.cpu.addTime(cpuOf(s.Cmd.Process.Pid) - before)
}

// hold measures status of a grace process that holds the listeners.
func (b bench) hold(n int, m *manyFigures) {
	s := b.begin(append([]string{"--name", "bench-many", "--ready", "notify", "--listen", "web=127.0.0.1:0"}, listenersBeside(n-1)...))
	defer s.stop()
	s.await("generation ready", 1)
	b.status(s, &m.held)
}

// listenersBeside are the flags for so many listeners beside another one.
func listenersBeside(n int) (flags []string) {
	for i := range n {
		flags = append(flags, "--listen", fmt.Sprintf("l%d=127.5.%d.%d:4321", i, i>>8, i&255))
	}
	return flags
}

// status measures the command from outside, and what it costs grace.
func (b bench) status(s *supervised, f *statusFigures) {
	before, begun := cpuOf(s.Cmd.Process.Pid), time.Now()
	if out, err := exec.Command(b.grace, "status", "--json", "bench-many").CombinedOutput(); err != nil {
		check(fmt.Errorf("%w: %s", err, out))
	}
	f.took.addTime(time.Since(begun))
	f.cpu.addTime(cpuOf(s.Cmd.Process.Pid) - before)
}
