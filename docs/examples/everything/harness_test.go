//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is for what has to come; nothing waits for its end in a test that passes.
const patience = 60 * time.Second

// binaries has grace and the program, both with the race detector.
var binaries string

func TestMain(m *testing.M) {
	if os.Getenv(plainVariable) != "" {
		os.Exit(servePlainly(os.Args[1]))
	}
	os.Exit(withBinaries(m.Run))
}

func withBinaries(run func() int) int {
	dir, err := os.MkdirTemp("", "grace-everything-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	for name, source := range map[string]string{"grace": "../../..", "everything": "."} {
		build := exec.Command("go", "build", "-race", "-o", filepath.Join(dir, name), ".")
		build.Dir = source
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build %s: %v\n%s", name, err, out)
			return 1
		}
	}
	return run()
}

// supervised is `grace run`. Its log comes with the program's own.
type supervised struct {
	t          *testing.T
	cmd        *exec.Cmd
	lines      chan string
	text       []string
	seen       map[string]time.Time
	generation int // the current one
}

func grace(t *testing.T, arguments ...string) *supervised {
	t.Helper()
	p := &supervised{t: t, lines: make(chan string, 1000), seen: map[string]time.Time{}}
	p.cmd = exec.Command(filepath.Join(binaries, "grace"), append([]string{"run", "--log-format", "json"}, arguments...)...)
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go p.read(r)
	t.Cleanup(p.cleanUp)
	p.generation = 1
	p.await("generation ready", 1)
	return p
}

func (p *supervised) read(r io.ReadCloser) {
	defer close(p.lines)
	defer r.Close()
	for text := bufio.NewScanner(r); text.Scan(); {
		p.lines <- text.Text()
	}
}

// upgrade returns when the old generation has ended.
func (p *supervised) upgrade() {
	p.t.Helper()
	p.signal(syscall.SIGHUP)
	p.generation++
	p.await("generation ready", p.generation)
	p.await("generation ended", p.generation-1)
}

func (p *supervised) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("cannot send %s: %v", sig, err)
	}
}

// await waits for a message of grace about a generation.
func (p *supervised) await(message string, generation int) {
	p.t.Helper()
	deadline := time.After(patience)
	for p.when(message, generation).IsZero() {
		select {
		case line, more := <-p.lines:
			if !more {
				p.t.Fatalf("grace ended and never said: %s %d", message, generation)
			}
			p.note(line)
		case <-deadline:
			p.t.Fatalf("grace does not say: %s %d", message, generation)
		}
	}
}

// when tells the time by grace's own clock.
func (p *supervised) when(message string, generation int) time.Time {
	return p.seen[fmt.Sprint(message, generation)]
}

func (p *supervised) note(line string) {
	p.text = append(p.text, line)
	var of struct {
		Message    string
		Generation int
		Time       time.Time
	}
	if json.Unmarshal([]byte(line), &of) == nil {
		p.seen[fmt.Sprint(of.Message, of.Generation)] = of.Time
	}
}

func (p *supervised) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		p.t.Errorf("grace ended with status %d", status)
	}
}

func (p *supervised) wait() int {
	kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	for line := range p.lines {
		p.note(line)
	}
	p.cmd.Wait() // the status is what is asked for
	return p.cmd.ProcessState.ExitCode()
}

// cleanUp leaves nothing behind, and shows the output of what failed.
func (p *supervised) cleanUp() {
	if p.cmd.ProcessState == nil {
		p.signal(syscall.SIGQUIT)
		p.wait()
	}
	all := strings.Join(p.text, "\n")
	for _, trouble := range []string{"DATA RACE", "panic:", "gave up with", "did not end in time", "with an error", "not end well", "KILL"} {
		if strings.Contains(all, trouble) {
			p.t.Errorf("%q is in the output", trouble)
		}
	}
	if p.t.Failed() {
		p.t.Logf("the output:\n%s", all)
	}
}
