//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/cmd/load"
)

// The programs under test: grace with the race detector, and the app without.
var graceBinary, appBinary string

func TestMain(m *testing.M) {
	os.Exit(withBinaries(m.Run))
}

func withBinaries(run func() int) int {
	dir, err := os.MkdirTemp("", "grace-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	graceBinary, appBinary = filepath.Join(dir, "grace"), filepath.Join(dir, "app")
	for _, build := range [][]string{
		{"build", "-race", "-o", graceBinary, "."},
		{"build", "-o", appBinary, "./testdata/app"},
	} {
		if out, err := exec.Command("go", build...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(build, " "), err, out)
			return 1
		}
	}
	if err := os.Chmod(dir, 0o711); err != nil { // for apps of other users
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// patience is for what has to come; nothing waits for its end in a test that
// passes.
const patience = 60 * time.Second

// entry is one line of grace's log.
type entry struct {
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

// supervised is a running `grace run`.
type supervised struct {
	t       *testing.T
	cmd     *exec.Cmd
	mu      sync.Mutex
	log     []entry
	text    []string
	changed chan struct{} // closed and replaced at each line
	drained chan struct{} // closed at the end of the log
}

func grace(t *testing.T, arguments ...string) *supervised {
	t.Helper()
	return graceWith(t, func(*exec.Cmd) {}, arguments...)
}

func graceWith(t *testing.T, change func(*exec.Cmd), arguments ...string) *supervised {
	t.Helper()
	s := &supervised{t: t, cmd: exec.Command(graceBinary, append([]string{"run", "--log-format", "json"}, arguments...)...)}
	s.changed, s.drained = make(chan struct{}), make(chan struct{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	change(s.cmd)
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go s.read(r)
	t.Cleanup(s.cleanUp)
	return s
}

func (s *supervised) read(r io.ReadCloser) {
	defer close(s.drained)
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(logged(lines.Bytes()), &e); err != nil {
			e = entry{}
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
func (s *supervised) cleanUp() {
	if s.cmd.ProcessState == nil {
		s.signal(syscall.SIGQUIT)
		s.wait()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.text, "\n")
	if strings.Contains(all, "DATA RACE") || strings.Contains(all, "panic:") {
		s.t.Error("grace has a data race or a panic")
	}
	if s.t.Failed() {
		s.t.Logf("the log:\n%s", strings.Join(s.text[max(0, len(s.text)-100):], "\n"))
	}
}

func (s *supervised) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("cannot send %s to grace: %v", sig, err)
	}
}

// wait gives grace's exit status.
func (s *supervised) wait() int {
	s.t.Helper()
	ended := make(chan struct{})
	go func() {
		s.cmd.Wait() // the status is what is asked for
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		<-ended
		s.t.Error("grace did not end")
	}
	return s.cmd.ProcessState.ExitCode()
}

// stop ends grace as an operator does, and wants it to end well.
func (s *supervised) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if status := s.wait(); status != 0 {
		s.t.Errorf("grace ended with status %d", status)
	}
	s.checkNothingLeft()
}

// checkNothingLeft looks for every process that grace said it had started.
func (s *supervised) checkNothingLeft() {
	s.t.Helper()
	for _, e := range s.entries() {
		if e.Message != "instance started" {
			continue
		}
		checkGone(s.t, e.PID)
	}
}

// checkGone looks for what lives of a process group. The dead wait for a moment until grace, or init after it, reaps them.
func checkGone(t *testing.T, pgid int) {
	t.Helper()
	if syscall.Kill(-pgid, 0) == syscall.ESRCH {
		return
	}
	if members, err := childproc.Group(pgid); err != nil || len(members) > 0 {
		t.Errorf("of process group %d there are still %v, %v", pgid, members, err)
	}
}

func (s *supervised) entries() []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// await waits for a line, among those that were written already too.
func (s *supervised) await(what string, match func(entry) bool) entry {
	s.t.Helper()
	return s.find(what, func(e entry, _ string) bool { return match(e) })
}

// find looks at what was read of each line, and at its text.
func (s *supervised) find(what string, match func(entry, string) bool) entry {
	s.t.Helper()
	deadline := time.After(patience)
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
			s.t.Fatalf("grace ended and never said: %s", what)
		}
		select {
		case <-changed:
		case <-s.drained:
		case <-deadline:
			s.t.Fatalf("grace does not say: %s", what)
		}
	}
}

// over reports whether all of the log was read.
func (s *supervised) over() bool {
	select {
	case <-s.drained:
		return true
	default:
		return false
	}
}

func (s *supervised) awaitMessage(text string) entry {
	s.t.Helper()
	return s.await(text, func(e entry) bool { return strings.HasPrefix(e.Message, text) })
}

func (s *supervised) awaitOf(text string, generation int) entry {
	s.t.Helper()
	return s.await(fmt.Sprintf("%s %d", text, generation), func(e entry) bool {
		return strings.HasPrefix(e.Message, text) && e.Generation == generation
	})
}

func (s *supervised) ready(generation int) entry {
	s.t.Helper()
	return s.awaitOf("generation ready", generation)
}

func (s *supervised) address(name string) string {
	s.t.Helper()
	return s.await("listening "+name, func(e entry) bool { return e.Message == "listening" && (name == "" || e.Name == name) }).Address
}

// upgrade asks for a generation and waits until it serves and the one before has
// ended.
func (s *supervised) upgrade(generation int) {
	s.t.Helper()
	s.signal(syscall.SIGHUP)
	s.ready(generation)
}

// upgrades replaces the app n times, one right after the other.
func (s *supervised) upgrades(n int) {
	s.t.Helper()
	s.ready(1)
	for g := 2; g <= n+1; g++ {
		s.upgrade(g)
	}
}

// everyKind is the load of a web app: each way to lose a request.
var everyKind = map[load.Kind]int{
	load.NewConnection: 2, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 2, load.Stream: 2,
}

// under runs do while clients that never retry send load, and wants not one
// request to fail.
func under(t *testing.T, cfg load.Config, do func()) load.Tally {
	t.Helper()
	if cfg.ThinkMax == 0 {
		cfg.ThinkMax = 4 * time.Millisecond
	}
	if cfg.Clients[load.Slow] > 0 && cfg.Paths == nil {
		cfg.Paths = map[load.Kind]string{load.Slow: "/slow?for=300ms"}
	}
	l, err := load.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	do()
	tally := l.Stop()
	if tally.Failures() > 0 || tally.Requests() == 0 {
		t.Errorf("of %d requests %d failed: %v, first %v", tally.Requests(), tally.Failures(), tally.ByFailure(), tally.First)
	}
	t.Logf("%d requests, %d events, %d failures", tally.Requests(), tally.Events(), tally.Failures())
	return tally
}

// unfinished is a request in flight, until its body is sent or the connection is closed.
type unfinished struct {
	t *testing.T
	net.Conn
	answers *bufio.Reader
}

// begin returns when the app reads the body.
func begin(t *testing.T, addr string) unfinished {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	r := unfinished{t, conn, bufio.NewReader(conn)}
	fmt.Fprint(conn, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	r.answer(http.StatusContinue, "")
	return r
}

func (r unfinished) answer(status int, body string) {
	r.t.Helper()
	response, err := http.ReadResponse(r.answers, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status || string(text) != body {
		r.t.Fatalf("the answer is %s, %q, %v", response.Status, text, err)
	}
}

// finish wants the answer, and ends the connection.
func (r unfinished) finish() {
	r.t.Helper()
	defer r.Close()
	io.WriteString(r, "body")
	r.answer(http.StatusOK, "body")
}

// ask sends one request to an app and gives the body of its answer.
func ask(t *testing.T, addr, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	return body
}
