package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

// entry is one line of grace's log, and when it was read.
type entry struct {
	gracelog.Entry
	at time.Time
}

// supervised is a running `grace run`; whoever started it stops it.
type supervised struct {
	cmd        *exec.Cmd
	lines      chan entry
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
	s := &supervised{cmd: exec.Command(b.grace, append(append(args, "--", b.app), app...)...), lines: make(chan entry, 1000)}
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go s.read(log)
	return s, nil
}

func (s *supervised) read(log io.Reader) {
	defer close(s.lines)
	_ = gracelog.Read(log, func(e gracelog.Entry) { // at an error too there is nothing more to come
		s.lines <- entry{e, time.Now()}
	})
}

// await passes over the lines before the one that it waits for.
func (s *supervised) await(message string, generation int) (entry, error) {
	deadline := time.After(patience)
	for {
		select {
		case e, more := <-s.lines:
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
			return entry{}, fmt.Errorf("grace did not say %q of generation %d", message, generation)
		}
	}
}

func (s *supervised) awaitReady() (entry, error) {
	s.pids = nil
	s.generation++
	return s.await("generation ready", s.generation)
}

// hangUp asks for an upgrade, and returns when it did.
func (s *supervised) hangUp() (time.Time, error) {
	return time.Now(), s.cmd.Process.Signal(syscall.SIGHUP)
}

func (s *supervised) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	kill := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	for range s.lines {
	}
	return s.cmd.Wait()
}
