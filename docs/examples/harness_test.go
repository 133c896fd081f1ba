//go:build linux

package examples

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/freeport"
)

// patience is for what has to come; nothing waits for its end in a test that passes.
const patience = 60 * time.Second

// binaries has grace and the examples, all with the race detector.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(withBinaries(m.Run))
}

func withBinaries(run func() int) int {
	dir, err := os.MkdirTemp("", "grace-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	if err := buildAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

func buildAll() error {
	if err := build("../..", "grace", "."); err != nil {
		return err
	}
	for _, name := range []string{"worker", "http", "echo", "gin", "chi", "fiber"} {
		if err := build(".", name, "./"+name); err != nil {
			return err
		}
	}
	return buildMinimal()
}

func build(dir, name string, arguments ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-race", "-o", filepath.Join(binaries, name)}, arguments...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", name, err, out)
	}
	return nil
}

// minimalAddr is where minimal listens in these tests.
var minimalAddr string

// buildMinimal puts a free address in the place of minimal's own: it has no line to spare for a flag.
func buildMinimal() error {
	var err error
	if minimalAddr, err = freeport.Find(); err != nil {
		return err
	}
	path, err := filepath.Abs("minimal/main.go")
	if err != nil {
		return err
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const usual = `":8080"`
	if !bytes.Contains(source, []byte(usual)) {
		return fmt.Errorf("%s does not listen on %s", path, usual)
	}
	replacement, overlay := filepath.Join(binaries, "minimal.go"), filepath.Join(binaries, "overlay.json")
	source = bytes.Replace(source, []byte(usual), fmt.Appendf(nil, "%q", minimalAddr), 1)
	if err := os.WriteFile(replacement, source, 0o600); err != nil {
		return err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {path: replacement}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return err
	}
	return build(".", "minimal", "-overlay", overlay, "./minimal")
}

// line is one of a process's output. Those of grace have fields.
type line struct {
	Text       string `json:"-"`
	Message    string
	Generation int
	PID        int `json:"pid"`
}

// process is grace or an example alone.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	mu      sync.Mutex
	lines   []line
	changed chan struct{} // closed and replaced at each line
	ended   chan struct{} // closed at the end of the output
}

func start(t *testing.T, command string, arguments ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(command, arguments...), changed: make(chan struct{}), ended: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Dir = binaries
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go p.read(r)
	t.Cleanup(p.cleanUp)
	return p
}

// grace is `grace run` of an example.
func grace(t *testing.T, arguments ...string) *process {
	t.Helper()
	return start(t, filepath.Join(binaries, "grace"), append([]string{"run", "--log-format", "json"}, arguments...)...)
}

func (p *process) read(r io.ReadCloser) {
	defer close(p.ended)
	defer r.Close()
	for text := bufio.NewScanner(r); text.Scan(); {
		var l line
		if json.Unmarshal(text.Bytes(), &l) != nil {
			l = line{}
		}
		l.Text = text.Text()
		p.mu.Lock()
		p.lines = append(p.lines, l)
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

func (p *process) output() []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// await waits for a line, among those that were written already too.
func (p *process) await(what string, match func(line) bool) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		lines, changed := p.lines, p.changed
		p.mu.Unlock()
		if slices.ContainsFunc(lines, match) {
			return
		}
		select {
		case <-changed:
		case <-p.ended:
			if !slices.ContainsFunc(p.output(), match) {
				p.t.Fatalf("the process ended and never said: %s", what)
			}
		case <-deadline:
			p.t.Fatalf("the process does not say: %s", what)
		}
	}
}

func (p *process) awaitText(text string) {
	p.t.Helper()
	p.await(text, func(l line) bool { return strings.Contains(l.Text, text) })
}

func (p *process) ready(generation int) {
	p.t.Helper()
	p.await(fmt.Sprintf("generation ready %d", generation), func(l line) bool {
		return strings.HasPrefix(l.Message, "generation ready") && l.Generation == generation
	})
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("cannot send %s: %v", sig, err)
	}
}

// upgrades replaces the app n times, one right after the other.
func (p *process) upgrades(n int) {
	p.t.Helper()
	p.ready(1)
	for g := 2; g <= n+1; g++ {
		p.signal(syscall.SIGHUP)
		p.ready(g)
	}
}

func (p *process) wait() int {
	kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	p.cmd.Wait() // the status is what is asked for
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the process as an operator does, and wants it and all that it has started to end well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.endsWell()
}

func (p *process) endsWell() {
	p.t.Helper()
	if status := p.wait(); status != 0 {
		p.t.Errorf("it ended with status %d", status)
	}
	for _, l := range p.output() {
		if l.Message == "instance started" && syscall.Kill(-l.PID, 0) != syscall.ESRCH {
			p.t.Errorf("process group %d of generation %d is still there", l.PID, l.Generation)
		}
	}
}

// trouble is what no example says that ends well.
var trouble = []string{"DATA RACE", "panic:", "gave up with", "did not end in time", "too late", "KILL"}

// cleanUp leaves nothing behind, and shows the output of what failed.
func (p *process) cleanUp() {
	if p.cmd.ProcessState == nil {
		p.signal(syscall.SIGQUIT)
		p.wait()
	}
	var all strings.Builder
	for _, l := range p.output() {
		all.WriteString(l.Text + "\n")
	}
	for _, text := range trouble {
		if strings.Contains(all.String(), text) {
			p.t.Errorf("%q is in the output", text)
		}
	}
	if p.t.Failed() {
		p.t.Logf("the output:\n%s", all.String())
	}
}

// dial connects as soon as somebody listens.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			conn.SetDeadline(deadline)
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
