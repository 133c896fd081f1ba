//go:build linux

package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is for what has to come; nothing waits for its end in a test that
// passes.
const Patience = 60 * time.Second

// Entry is one line of grace's log.
type Entry struct {
	Level      string
	Message    string
	Generation int
	Instance   int
	PID        int `json:"pid"`
	Name       string
	Network    string
	Address    string
	Why        string
	Took       float64 `json:"took_ms"`
}

// Grace is a running `grace run`.
type Grace struct {
	T       *testing.T
	Cmd     *exec.Cmd
	mu      sync.Mutex
	log     []Entry
	text    []string
	changed chan struct{} // closed and replaced at each line
	Ended   chan struct{} // closed at the end of the log
}

func Start(t *testing.T, arguments ...string) *Grace {
	t.Helper()
	return StartWith(t, func(*exec.Cmd) {}, arguments...)
}

func StartWith(t *testing.T, change func(*exec.Cmd), arguments ...string) *Grace {
	t.Helper()
	s := &Grace{T: t, Cmd: exec.Command(GraceBinary, append([]string{"run", "--log-format", "json"}, arguments...)...)}
	s.changed, s.Ended = make(chan struct{}), make(chan struct{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Cmd.Stdout, s.Cmd.Stderr = w, w
	change(s.Cmd)
	err = s.Cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go s.read(r)
	t.Cleanup(s.cleanUp)
	return s
}

func (s *Grace) read(r io.ReadCloser) {
	defer close(s.Ended)
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Entry
		if err := json.Unmarshal(logged(lines.Bytes()), &e); err != nil {
			e = Entry{}
		}
		s.mu.Lock()
		s.log, s.text = append(s.log, e), append(s.text, lines.Text())
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

// logged leaves out what an app has written before grace's line: some write theirs
// piece by piece.
func logged(line []byte) []byte {
	return line[max(0, bytes.Index(line, []byte(`{"level":`))):]
}

// cleanUp leaves nothing behind, and shows the log of what failed.
func (s *Grace) cleanUp() {
	if s.Cmd.ProcessState == nil {
		s.Signal(syscall.SIGQUIT)
		s.Wait()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.text, "\n")
	if strings.Contains(all, "DATA RACE") || strings.Contains(all, "panic:") {
		s.T.Error("grace has a data race or a panic")
	}
	if s.T.Failed() {
		s.T.Logf("the log:\n%s", strings.Join(s.text[max(0, len(s.text)-100):], "\n"))
	}
}

func (s *Grace) Signal(sig syscall.Signal) {
	s.T.Helper()
	if err := s.Cmd.Process.Signal(sig); err != nil {
		s.T.Fatalf("cannot send %s to grace: %v", sig, err)
	}
}

// Wait gives grace's exit status.
func (s *Grace) Wait() int {
	s.T.Helper()
	ended := make(chan struct{})
	go func() {
		s.Cmd.Wait() // the status is what is asked for
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(Patience):
		s.Cmd.Process.Kill()
		<-ended
		s.T.Error("grace did not end")
	}
	return s.Cmd.ProcessState.ExitCode()
}

// Stop ends grace as an operator does, and wants it to end well.
func (s *Grace) Stop() {
	s.T.Helper()
	s.Signal(syscall.SIGTERM)
	if status := s.Wait(); status != 0 {
		s.T.Errorf("grace ended with status %d", status)
	}
	s.CheckNothingLeft()
}

// CheckNothingLeft looks for every process that grace said it had started.
func (s *Grace) CheckNothingLeft() {
	s.T.Helper()
	for _, e := range s.Entries() {
		if e.Message != "instance started" {
			continue
		}
		CheckGone(s.T, e.PID)
	}
}

func (s *Grace) Entries() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Await waits for a line, among those that were written already too.
func (s *Grace) Await(what string, match func(Entry) bool) Entry {
	s.T.Helper()
	return s.AwaitLine(what, func(e Entry, _ string) bool { return match(e) })
}

// AwaitLine looks at what was read of each line, and at its text.
func (s *Grace) AwaitLine(what string, match func(Entry, string) bool) Entry {
	s.T.Helper()
	deadline := time.After(Patience)
	for seen := 0; ; {
		over := s.over() // before the look, as the line may be the last one
		s.mu.Lock()
		log, text, changed := s.log, s.text, s.changed
		s.mu.Unlock()
		for ; seen < len(log); seen++ {
			if match(log[seen], text[seen]) {
				return log[seen]
			}
		}
		if over {
			s.T.Fatalf("grace ended and never said: %s", what)
		}
		select {
		case <-changed:
		case <-s.Ended:
		case <-deadline:
			s.T.Fatalf("grace does not say: %s", what)
		}
	}
}

// over reports whether all of the log was read.
func (s *Grace) over() bool {
	select {
	case <-s.Ended:
		return true
	default:
		return false
	}
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

func (s *Grace) AwaitReady(generation int) Entry {
	s.T.Helper()
	return s.AwaitGeneration("generation ready", generation)
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

func (s *Grace) AwaitText(want string) {
	s.T.Helper()
	s.AwaitLine(want, func(_ Entry, text string) bool { return text == want })
}

func (s *Grace) Output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(strings.Join(s.text, "\n"), `\"`, `"`)
}

// Crash kills the process that serves.
func (s *Grace) Crash(generation int) {
	s.T.Helper()
	pid := 0
	for _, e := range s.Entries() {
		if e.Message == "instance started" && e.Generation == generation {
			pid = e.PID
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.T.Fatal(err)
	}
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

func (s *Grace) AwaitTimes(what string, n int, match func(Entry, string) bool) {
	s.T.Helper()
	seen := 0
	s.AwaitLine(what, func(e Entry, text string) bool {
		if match(e, text) {
			seen++
		}
		return seen == n
	})
}
