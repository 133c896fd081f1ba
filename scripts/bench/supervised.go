package main

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

// supervised is a running `grace run`; whoever started it stops it.
type supervised struct {
	*gracelog.Process
	address    string
	generation int
	pids       []int // of the current generation
}

// patience is for what comes long before, unless something is broken.
const patience = 30 * time.Second

func (b bench) supervise(flags []string, app ...string) (*supervised, error) {
	s, err := b.begin(append([]string{"--listen", "web=127.0.0.1:0"}, flags...), app...)
	if err != nil {
		return nil, err
	}
	listening, err := s.await("listening", 0)
	if err == nil {
		s.address = listening.Address
		_, err = s.awaitReady()
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (b bench) begin(flags []string, app ...string) (*supervised, error) {
	args := append([]string{"run", "--log-format", "json"}, flags...)
	p, err := gracelog.Start(exec.Command(b.grace, append(append(args, "--", b.app), app...)...))
	return &supervised{Process: p}, err
}

// await passes over the lines before the one that it waits for.
func (s *supervised) await(message string, generation int) (gracelog.Entry, error) {
	deadline := time.After(patience)
	for {
		select {
		case e, more := <-s.Log:
			if !more {
				return e, fmt.Errorf("grace ended instead of %q", message)
			}
			if e.Message == "instance started" {
				s.pids = append(s.pids, e.PID)
			}
			if e.Message == message && e.Generation == generation {
				return e, nil
			}
		case <-deadline:
			return gracelog.Entry{}, fmt.Errorf("grace did not say %q of generation %d", message, generation)
		}
	}
}

func (s *supervised) awaitReady() (gracelog.Entry, error) {
	s.pids = nil
	s.generation++
	return s.await("generation ready", s.generation)
}

// hangUp asks for an upgrade, and returns when it did.
func (s *supervised) hangUp() (time.Time, error) {
	return time.Now(), s.Cmd.Process.Signal(syscall.SIGHUP)
}

func (s *supervised) stop() error { return s.Stop(patience) }
