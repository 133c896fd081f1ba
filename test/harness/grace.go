package harness

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Grace is a running `grace run`. Its output is also that of the app.
type Grace struct {
	*Process
	serves int // the generation that was ready last
}

// Start runs grace with these arguments of `grace run`.
func Start(t *testing.T, arguments ...string) *Grace {
	t.Helper()
	return StartWith(t, func(*exec.Cmd) {}, arguments...)
}

// StartWith is Start of a command that was changed.
func StartWith(t *testing.T, change func(*exec.Cmd), arguments ...string) *Grace {
	t.Helper()
	cmd := exec.Command(GraceBinary(), append([]string{"run", "--log-format", "json"}, arguments...)...)
	change(cmd)
	return StartCommand(t, cmd)
}

// StartCommand runs a command that becomes `grace run`.
func StartCommand(t *testing.T, cmd *exec.Cmd) *Grace {
	t.Helper()
	return &Grace{Process: StartProcess(t, cmd)}
}

func (s *Grace) AwaitMessage(text string) Entry {
	s.T.Helper()
	return s.Await(text, func(e Entry) bool { return strings.HasPrefix(e.Message, text) })
}

func (s *Grace) AwaitGeneration(text string, generation int) Entry {
	s.T.Helper()
	return s.Await(fmt.Sprintf("%s %d", text, generation), func(e Entry) bool {
		return strings.HasPrefix(e.Message, text) && e.Generation == generation
	})
}

// AwaitReady fails at once when the generation has failed.
func (s *Grace) AwaitReady(generation int) Entry {
	s.T.Helper()
	e := s.awaitDecided(generation)
	if isFailed(e) {
		s.T.Fatalf("generation %d failed: %s", generation, e.Why)
	}
	s.serves = generation
	return e
}

func (s *Grace) awaitDecided(generation int) Entry {
	s.T.Helper()
	return s.Await(fmt.Sprintf("generation %d is ready, or has failed", generation), func(e Entry) bool {
		return e.Generation == generation && (isReady(e) || isFailed(e))
	})
}

func isReady(e Entry) bool { return strings.HasPrefix(e.Message, "generation ready") }

func isFailed(e Entry) bool {
	return strings.HasPrefix(e.Message, "upgrade failed") || e.Message == "first generation failed"
}

func (s *Grace) Address(name string) string {
	s.T.Helper()
	return s.Await("listening "+name, func(e Entry) bool { return e.Message == "listening" && (name == "" || e.Name == name) }).Address
}

// Upgrade asks for a generation and waits until it serves and the one before has
// ended.
func (s *Grace) Upgrade(generation int) {
	s.T.Helper()
	s.Signal(syscall.SIGHUP)
	s.AwaitReady(generation)
}

// UpgradeNext asks for the generation after the one that serves.
func (s *Grace) UpgradeNext() {
	s.T.Helper()
	s.Upgrade(s.serves + 1)
}

// AwaitDrained waits for the end of the generation before the one that serves.
func (s *Grace) AwaitDrained() {
	s.T.Helper()
	if e := s.AwaitGeneration("generation ended", s.serves-1); e.Why != "drained" {
		s.T.Errorf("generation %d ended: %s", e.Generation, e.Why)
	}
}

// Upgrades replaces the app n times, one right after the other.
func (s *Grace) Upgrades(n int) {
	s.T.Helper()
	s.AwaitReady(1)
	for g := 2; g <= n+1; g++ {
		s.Upgrade(g)
	}
}

func (s *Grace) Said(text string) bool {
	return slices.ContainsFunc(s.Entries(), func(e Entry) bool { return strings.HasPrefix(e.Message, text) })
}

func (s *Grace) AwaitInstance(text string, number int) Entry {
	s.T.Helper()
	return s.Await(fmt.Sprintf("%s, number %d", text, number), func(e Entry) bool { return e.Message == text && e.Instance == number })
}

// Crash kills the last process of a generation.
func (s *Grace) Crash(generation int) {
	s.T.Helper()
	pid := 0
	for _, e := range s.Entries() {
		if e.Message == instanceStarted && e.Generation == generation {
			pid = e.PID
		}
	}
	Kill(s.T, pid)
}

func (s *Grace) FailOnce(broken string, generation int) {
	s.T.Helper()
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		s.T.Fatal(err)
	}
	s.Signal(syscall.SIGHUP)
	s.AwaitGeneration("upgrade failed", generation)
	if err := os.Remove(broken); err != nil {
		s.T.Fatal(err)
	}
}

// SignalUntilStoppingAtOnce repeats a stop signal: what comes within half a second of the first one is taken for that.
func (s *Grace) SignalUntilStoppingAtOnce(sig syscall.Signal) {
	s.T.Helper()
	Until(s.T, "grace stops at once", func() bool {
		s.Signal(sig)
		return s.Said("stopping at once")
	})
}

// Instance is the pid of the one instance of the generation that serves.
func (s *Grace) Instance() int {
	s.T.Helper()
	return s.AwaitGeneration(instanceStarted, s.serves).PID
}

// ReadySince is by grace's own clock. It is zero for a generation that never was ready.
func (s *Grace) ReadySince(generation int) time.Time {
	for _, e := range s.Entries() {
		if e.Generation == generation && isReady(e) {
			return e.Time
		}
	}
	return time.Time{}
}

// UpgradeNextFails asks for the next generation, which has to fail.
func (s *Grace) UpgradeNextFails() {
	s.T.Helper()
	s.Signal(syscall.SIGHUP)
	if e := s.awaitDecided(s.serves + 1); isReady(e) {
		s.T.Error("a broken version replaced one that works")
	}
}
