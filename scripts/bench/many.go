package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

const manyRounds = 3

// many measures what grows with the number of listeners: the binds of an app, readiness after them, and status.
func (b bench) many() error {
	t := newTable("An app with many listeners, ms: median (min..max)",
		"listeners\tbinds alone\t\tgeneration 1\t\tgeneration 2\t\tthen ready after\t\tCPU of grace\t\tstatus, captured\t\tCPU\t\tstatus, held\t\tCPU\t")
	defer t.end()
	for _, n := range []int{100, 300, 1000} {
		var m manyFigures
		for range manyRounds {
			if err := errors.Join(b.bindAlone(n, &m), b.bindCaptured(n, &m), b.hold(n, &m)); err != nil {
				return fmt.Errorf("%d listeners: %w", n, err)
			}
		}
		t.line("%d\t%v\t%v\t%v\t%v\t%v\t%v\t%v\t%v\t%v", n, m.alone, m.first, m.second, m.after, m.cpu,
			m.captured.took, m.captured.cpu, m.held.took, m.held.cpu)
	}
	return nil
}

type manyFigures struct {
	alone, first, second series // from before the first bind until after the last listen
	after                series // until grace sees that the second generation is ready
	cpu                  series // of grace, from the request for the upgrade until then
	captured, held       statusFigures
}

type statusFigures struct{ took, cpu series }

func (b bench) bindAlone(n int, m *manyFigures) error {
	app := exec.Command(b.app, "-many", fmt.Sprint(n))
	log, err := app.StderrPipe()
	if err != nil {
		return err
	}
	if err := app.Start(); err != nil {
		return err
	}
	var e gracelog.Entry
	line, err := bufio.NewReader(log).ReadBytes('\n')
	err = errors.Join(err, json.Unmarshal(line, &e), app.Process.Kill())
	_ = app.Wait() // it was killed
	m.alone.add(e.Took)
	return err
}

// bindCaptured measures two generations, and status while the first one serves.
func (b bench) bindCaptured(n int, m *manyFigures) (err error) {
	s, err := b.begin([]string{"--name", "bench-many"}, "-many", fmt.Sprint(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	first, err := s.await("bound", 1)
	if err != nil {
		return err
	}
	m.first.add(first.Took)
	return errors.Join(b.status(s, &m.captured), s.bindAgain(m))
}

func (s *supervised) bindAgain(m *manyFigures) error {
	before, err := cpuOf(s.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	if _, err := s.hangUp(); err != nil {
		return err
	}
	bound, err := s.await("bound", 2)
	if err != nil {
		return err
	}
	ready, err := s.await("generation ready", 2)
	if err != nil {
		return err
	}
	after, err := cpuOf(s.Cmd.Process.Pid)
	m.second.add(bound.Took)
	m.after.addTime(ready.Read.Sub(bound.Read))
	m.cpu.addTime(after - before)
	return err
}

// hold measures status of a grace process that holds the listeners.
func (b bench) hold(n int, m *manyFigures) (err error) {
	flags := []string{"--name", "bench-many", "--ready", "notify", "--listen", "web=127.0.0.1:0"}
	for i := range n - 1 {
		flags = append(flags, "--listen", fmt.Sprintf("l%d=127.5.%d.%d:4321", i, i>>8, i&255))
	}
	s, err := b.begin(flags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if _, err := s.await("generation ready", 1); err != nil {
		return err
	}
	return b.status(s, &m.held)
}

// status measures the command from outside, and what it costs grace.
func (b bench) status(s *supervised, f *statusFigures) error {
	before, err := cpuOf(s.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	begun := time.Now()
	if out, err := exec.Command(b.grace, "status", "--json", "bench-many").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	f.took.addTime(time.Since(begun))
	after, err := cpuOf(s.Cmd.Process.Pid)
	f.cpu.addTime(after - before)
	return err
}

// cpuOf is what the threads of a process that live have used, to the nanosecond.
func cpuOf(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			return 0, err
		}
		var used time.Duration
		if _, err := fmt.Sscan(string(text), &used); err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
