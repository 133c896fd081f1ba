//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/freeport"
)

// patience is for what has to come; nothing waits for its end in a test that passes.
const patience = 60 * time.Second

// binaries has grace and the board, both with the race detector.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(withBinaries(m.Run))
}

func withBinaries(run func() int) int {
	dir, err := os.MkdirTemp("", "grace-sse-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	for name, source := range map[string]string{"grace": "../../..", "board": "."} {
		build := exec.Command("go", "build", "-race", "-o", filepath.Join(dir, name), ".")
		build.Dir = source
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build %s: %v\n%s", name, err, out)
			return 1
		}
	}
	return run()
}

const (
	upgrades  = 20
	followers = 8
	posters   = 3
	lastLine  = "the end"
)

func TestEachLineComesOnceOverUpgrades(t *testing.T) {
	addr := freeport.Address(t)
	path := filepath.Join(t.TempDir(), "board.txt")
	p := grace(t, "--listen", addr, "--", filepath.Join(binaries, "board"), "-addr", addr, "-board", path)
	p.await("generation ready", 1)

	var following, posting sync.WaitGroup
	all := make([]*follower, followers)
	for n := range all {
		f := &follower{addr: addr, placed: make(chan struct{})}
		all[n] = f
		following.Go(func() { f.err = f.follow() })
		f.await(t)
	}
	stop := make(chan struct{})
	for n := range posters {
		posting.Go(func() {
			if err := post(addr, n, stop); err != nil {
				t.Error(err)
			}
		})
	}
	for g := 2; g <= upgrades+1; g++ {
		p.signal(syscall.SIGHUP)
		p.await("generation ready", g)
		p.await("generation ended", g-1)
	}
	close(stop)
	posting.Wait()
	if err := postOne(addr, lastLine); err != nil {
		t.Fatal(err)
	}
	following.Wait()
	p.stop()
	checkAll(t, all, path)
}

func checkAll(t *testing.T, all []*follower, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(want) < upgrades {
		t.Errorf("only %d lines were posted", len(want))
	}
	for n, f := range all {
		if f.err != nil {
			t.Errorf("follower %d: %v", n, f.err)
		}
		if !slices.Equal(f.lines, want) {
			t.Errorf("follower %d has %d lines, not these %d: %s", n, len(f.lines), len(want), firstDifference(f.lines, want))
		}
		if f.streams < 2 {
			t.Errorf("follower %d was never asked to come back", n)
		}
		t.Logf("follower %d: %d lines, %d streams", n, len(f.lines), f.streams)
	}
}

func firstDifference(got, want []string) string {
	for n := range min(len(got), len(want)) {
		if got[n] != want[n] {
			return fmt.Sprintf("line %d is %q and not %q", n, got[n], want[n])
		}
	}
	return "one is the beginning of the other"
}

// follower is what an EventSource is, without its patience: a stream that is cut is an error.
type follower struct {
	addr    string
	placed  chan struct{} // closed when it has an ID
	lines   []string
	streams int
	lastID  string
	retry   time.Duration
	err     error // of follow
}

func (f *follower) await(t *testing.T) {
	t.Helper()
	select {
	case <-f.placed:
	case <-time.After(patience):
		t.Fatal("a follower does not get its place")
	}
}

// follow returns when it has seen the last line.
func (f *follower) follow() error {
	for {
		done, err := f.stream()
		if err != nil || done {
			return err
		}
		if f.retry > time.Second {
			return fmt.Errorf("the stream ended with a wait of %v", f.retry)
		}
		time.Sleep(f.retry) // as the server wants it
	}
}

func (f *follower) stream() (done bool, err error) {
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * patience))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: board\r\nAccept: text/event-stream\r\n")
	if f.lastID != "" {
		fmt.Fprintf(conn, "Last-Event-ID: %s\r\n", f.lastID)
	}
	fmt.Fprint(conn, "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK || !resp.Close {
		return false, fmt.Errorf("status %s, closes %v", resp.Status, resp.Close)
	}
	f.streams++
	return f.read(bufio.NewReader(resp.Body))
}

// read returns at the end of the stream. One that is cut ends with another error than io.EOF.
func (f *follower) read(r *bufio.Reader) (done bool, err error) {
	var data string
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "data":
			data = value
		case "id":
			f.place(value)
		case "retry":
			f.wait(value)
		case "":
			if f.take(data) {
				return true, nil
			}
			data = ""
		}
	}
}

func (f *follower) place(id string) {
	if f.lastID == "" {
		close(f.placed)
	}
	f.lastID = id
}

func (f *follower) wait(milliseconds string) {
	ms, err := strconv.Atoi(milliseconds)
	if err != nil {
		ms = 1 << 30
	}
	f.retry = time.Duration(ms) * time.Millisecond
}

func (f *follower) take(data string) (done bool) {
	if data != "" {
		f.lines = append(f.lines, data)
	}
	return data == lastLine
}

// post sends one line after the other on a connection until the server asks it to leave, and repeats none.
func post(addr string, poster int, stop <-chan struct{}) error {
	for n := 0; ; {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		for last := false; !last; n++ {
			select {
			case <-stop:
				return conn.Close()
			case <-time.After(3 * time.Millisecond): // a think time
			}
			if last, err = send(conn, fmt.Sprintf("%d of poster %d", n, poster)); err != nil {
				return err
			}
		}
		conn.Close()
	}
}

func postOne(addr, line string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = send(conn, line)
	return err
}

func send(conn net.Conn, line string) (last bool, err error) {
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: board\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, fmt.Errorf("cannot post %q: %w", line, err)
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("cannot post %q: %s", line, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Close, err
}

// supervised is `grace run`. Its log comes with the board's own.
type supervised struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	text  []string
	seen  map[string]bool
}

func grace(t *testing.T, arguments ...string) *supervised {
	t.Helper()
	p := &supervised{t: t, lines: make(chan string, 1000), seen: map[string]bool{}}
	p.cmd = exec.Command(filepath.Join(binaries, "grace"), append([]string{"run", "--log-format", "json"}, arguments...)...)
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
	go func() {
		defer close(p.lines)
		defer r.Close()
		for text := bufio.NewScanner(r); text.Scan(); {
			p.lines <- text.Text()
		}
	}()
	t.Cleanup(p.cleanUp)
	return p
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
	for want := fmt.Sprint(message, generation); !p.seen[want]; {
		select {
		case line, more := <-p.lines:
			if !more {
				p.t.Fatalf("grace ended and never said: %s", want)
			}
			p.note(line)
		case <-deadline:
			p.t.Fatalf("grace does not say: %s", want)
		}
	}
}

func (p *supervised) note(line string) {
	p.text = append(p.text, line)
	var of struct {
		Message    string
		Generation int
	}
	if json.Unmarshal([]byte(line), &of) == nil {
		p.seen[fmt.Sprint(of.Message, of.Generation)] = true
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
	for _, trouble := range []string{"DATA RACE", "panic:", "gave up with", "did not end in time", "with an error", "KILL"} {
		if strings.Contains(all, trouble) {
			p.t.Errorf("%q is in the output", trouble)
		}
	}
	if p.t.Failed() {
		p.t.Logf("the output:\n%s", all)
	}
}
