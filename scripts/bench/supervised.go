package main

import (
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

// supervise returns when the app serves the socket that grace holds for it.
func (b bench) supervise(flags []string, app ...string) *supervised {
	s := b.begin(append([]string{"--listen", "web=127.0.0.1:0"}, flags...), app...)
	if err := attempt(func() {
		s.address = s.await("listening", 0).Address
		s.awaitReady()
	}); err != nil {
		s.stop()
		check(err)
	}
	return s
}

// superviseCaptured returns when the app serves a socket that it has bound itself.
func (b bench) superviseCaptured(flags []string, app ...string) *supervised {
	address := freeAddress()
	s := b.begin(flags, append([]string{"-addr", address}, app...)...)
	s.address = address
	if err := attempt(func() { s.awaitReady() }); err != nil {
		s.stop()
		check(err)
	}
	return s
}

func (b bench) begin(flags []string, app ...string) *supervised {
	return b.beginCommand(flags, append([]string{b.app}, app...)...)
}

func (b bench) beginCommand(flags []string, command ...string) *supervised {
	args := append([]string{"run", "--log-format", "json"}, flags...)
	return &supervised{Process: must(gracelog.Start(exec.Command(b.grace, append(append(args, "--"), command...)...)))}
}

// await passes over the lines before the one that it waits for.
func (s *supervised) await(message string, generation int) gracelog.Entry {
	return s.awaitEntry(message, func(e gracelog.Entry) bool { return e.Generation == generation })
}

func (s *supervised) awaitEntry(message string, fits func(gracelog.Entry) bool) gracelog.Entry {
	deadline := time.After(patience)
	for {
		select {
		case e, more := <-s.Log:
			if !more {
				check(fmt.Errorf("grace ended instead of %q", message))
			}
			if e.Message == "instance started" {
				s.pids = append(s.pids, e.PID)
			}
			if e.Message == message && fits(e) {
				return e
			}
		case <-deadline:
			check(fmt.Errorf("grace did not say %q", message))
		}
	}
}

func (s *supervised) awaitReady() gracelog.Entry {
	s.pids = nil
	s.generation++
	return s.await("generation ready", s.generation)
}

// awaitEnd waits for the end of the generation before the current one.
func (s *supervised) awaitEnd() gracelog.Entry { return s.await("generation ended", s.generation-1) }

// hangUp asks for an upgrade, and returns when it did.
func (s *supervised) hangUp() time.Time {
	begun := time.Now()
	check(s.Cmd.Process.Signal(syscall.SIGHUP))
	return begun
}

func (s *supervised) stop() { check(s.Stop(patience)) }
