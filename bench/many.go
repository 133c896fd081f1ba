//go:build bench && linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

const (
	manyRounds    = 3
	manyAddresses = 1000
)

// many measures what grows with the number of addresses: the binds of an app, and status.
func (b bench) many() error {
	alone, first, second := series{}, series{}, series{}
	for range manyRounds {
		plain, err := b.bindAlone()
		if err != nil {
			return err
		}
		captured, err := b.bindCaptured()
		if err != nil {
			return err
		}
		alone, first, second = append(alone, plain), append(first, captured[0]), append(second, captured[1])
	}
	few, all := series{}, series{}
	for range manyRounds {
		for held, times := range map[int]*series{1: &few, manyAddresses: &all} {
			took, err := b.status(held)
			if err != nil {
				return err
			}
			*times = append(*times, took)
		}
	}
	t := newTable(fmt.Sprintf("An app with %d addresses, ms: median (min..max)", manyAddresses), "\t")
	defer t.end()
	t.line("it binds them, without grace\t%v", alone)
	t.line("captured, the first generation\t%v", first)
	t.line("captured, the second generation\t%v", second)
	t.line("grace status with one held listener\t%v", few)
	t.line("grace status with %d\t%v", manyAddresses, all)
	return nil
}

func (b bench) bindAlone() (float64, error) {
	app := exec.Command(b.app, "-many", fmt.Sprint(manyAddresses))
	log, err := app.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := app.Start(); err != nil {
		return 0, err
	}
	var e entry
	line, err := bufio.NewReader(log).ReadBytes('\n')
	err = errors.Join(err, json.Unmarshal(line, &e), app.Process.Kill())
	_ = app.Wait() // it was killed
	return e.Took, err
}

// bindCaptured gives the times of two generations.
func (b bench) bindCaptured() (took [2]float64, err error) {
	s, err := b.begin([]string{"--name", "bench-many", "--settle", "0"}, "-many", fmt.Sprint(manyAddresses))
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for i := range took {
		e, err := s.await("bound", i+1)
		if err != nil {
			return took, err
		}
		took[i] = e.Took
		if i == 0 {
			if out, err := exec.Command(b.grace, "upgrade", "--no-wait", "bench-many").CombinedOutput(); err != nil {
				return took, fmt.Errorf("%w: %s", err, out)
			}
		}
	}
	return took, nil
}

// status measures the command with so many held listeners.
func (b bench) status(held int) (ms float64, err error) {
	flags := []string{"--name", "bench-many", "--ready", "notify"}
	for i := range held {
		flags = append(flags, "--listen", fmt.Sprintf("l%d=127.5.%d.%d:4321", i, i>>8, i&255))
	}
	s, err := b.begin(flags)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if _, err := s.await("generation ready", 1); err != nil {
		return 0, err
	}
	begun := time.Now()
	if out, err := exec.Command(b.grace, "status", "--json", "bench-many").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return float64(time.Since(begun).Microseconds()) / 1000, nil
}
