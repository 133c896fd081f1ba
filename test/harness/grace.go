//go:build linux

package harness

import (
	"bufio"
	"bytes"
	"context"
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

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
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

// CheckGone looks for what lives of a process group. The dead wait for a moment until grace, or init after it, reaps them.
func CheckGone(t *testing.T, pgid int) {
	t.Helper()
	if syscall.Kill(-pgid, 0) == syscall.ESRCH {
		return
	}
	if members, err := childproc.Group(pgid); err != nil || len(members) > 0 {
		t.Errorf("of process group %d there are still %v, %v", pgid, members, err)
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

// EveryKind is the load of a web app: each way to lose a request.
var EveryKind = map[load.Kind]int{
	load.NewConnection: 2, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 2, load.Stream: 2,
}

// UnderLoad runs do while clients that never retry send load, and wants not one
// request to fail.
func UnderLoad(t *testing.T, cfg load.Config, do func()) load.Tally {
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

// Request is one in flight, until its body is sent or the connection is closed.
type Request struct {
	t *testing.T
	net.Conn
	answers *bufio.Reader
}

// BeginRequest returns when the app reads the body.
func BeginRequest(t *testing.T, addr string) Request {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * Patience)); err != nil {
		t.Fatal(err)
	}
	r := Request{t, conn, bufio.NewReader(conn)}
	fmt.Fprint(conn, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	r.answer(http.StatusContinue, "")
	return r
}

func (r Request) answer(status int, body string) {
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

// Finish wants the answer, and ends the connection.
func (r Request) Finish() {
	r.t.Helper()
	defer r.Close()
	io.WriteString(r, "body")
	r.answer(http.StatusOK, "body")
}

// Get sends one request to an app and gives the body of its answer.
func Get(t *testing.T, addr, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
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

// Until asks again until it is so.
func Until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}

// RemoveCgroup removes a folder that holds nothing but folders and the kernel's files.
func RemoveCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, RemoveCgroup(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, syscall.Rmdir(dir))
}

func Need(t *testing.T, program string) {
	t.Helper()
	_, err := exec.LookPath(program)
	requirement.Check(t, program, err)
}

func (s *Grace) Said(text string) bool {
	return slices.ContainsFunc(s.Entries(), func(e Entry) bool { return strings.HasPrefix(e.Message, text) })
}

func (s *Grace) AwaitInstance(text string, number int) Entry {
	s.T.Helper()
	return s.Await(fmt.Sprintf("%s, number %d", text, number), func(e Entry) bool { return e.Message == text && e.Instance == number })
}

func Touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// WorldFolder is one where any user can make files.
func WorldFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace-unix-") // the test's name would make a path too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *Grace) AwaitText(want string) {
	s.T.Helper()
	s.AwaitLine(want, func(_ Entry, text string) bool { return text == want })
}

// OpenTerminal makes a pair of which the test closes what is left.
func OpenTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

// AppScript writes a shell program that runs the app with the arguments found in a
// file beside it, so that a test can change the next generation.
func AppScript(t *testing.T, dir string) (program, arguments string) {
	t.Helper()
	arguments = filepath.Join(dir, "arguments")
	return Write(t, dir, "program", "#!/bin/sh\nexec "+AppBinary+" $(cat "+arguments+" 2>/dev/null)\n", 0o755), arguments
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

func Write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// WriteFile lets no process be born meanwhile. It would have the descriptor until its exec, and nobody can execute a file
// that somebody may write to (execve(2), ETXTBSY).
func WriteFile(path, text string, mode os.FileMode) error {
	if mode&0o111 != 0 {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	return os.WriteFile(path, []byte(text), mode)
}

func AsNobody(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	c.Dir = "/"
}

const Nobody = 65534

func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		requirement.Check(t, "root", os.ErrPermission)
	}
}

func PIDsOf(t *testing.T, command string) (pids []int) {
	t.Helper()
	all, err := childproc.Everybody()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range all {
		if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil && string(text) == command {
			pids = append(pids, pid)
		}
	}
	return pids
}

func StartScript(t *testing.T, script string, flags ...string) *Grace {
	t.Helper()
	program := Write(t, t.TempDir(), "wrapper", "#!/bin/bash\nAPP="+AppBinary+"\n"+script, 0o755)
	return Start(t, append(flags, "--", program)...)
}

func Read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
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

// FewClients are clients that never retry and think for a few milliseconds.
var FewClients = map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 2, load.KeepAlivePost: 2, load.Slow: 1}
