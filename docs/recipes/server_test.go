//go:build linux

package recipes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/processgroup"
)

// event is a line of grace's log.
type event struct {
	Message    string
	Generation int
	Pid        int
	Why        string
}

// server is a command of a page that runs.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	events chan event
	closed chan struct{} // once no process has its stderr any more

	mu     sync.Mutex
	groups []processgroup.Group // of all instances
	lines  bytes.Buffer         // of stderr and stdout
}

// start runs a command of a page in dir as a shell would.
func start(t *testing.T, dir, command string, environment ...string) *server {
	t.Helper()
	s := &server{t: t, events: make(chan event, 10000), closed: make(chan struct{})}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command("/bin/sh", "-c", "exec "+command)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, in, in
	s.cmd.Env = append(append(os.Environ(), "PATH="+dir+"/bin:"+searchPath()), environment...)
	err = s.cmd.Start()
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	go s.read(out)
	t.Cleanup(s.end)
	return s
}

// read takes grace's log apart from what the server writes between its lines.
func (s *server) read(out io.ReadCloser) {
	defer close(s.closed)
	defer out.Close()
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if e := s.note(scanner.Bytes()); e.Message != "" {
			s.events <- e
		}
	}
}

func (s *server) note(line []byte) (e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines.Write(append(line, '\n'))
	// A server may write its line piece by piece, with grace's in between.
	if json.Unmarshal(line[max(0, bytes.Index(line, []byte(`{"level":`))):], &e) != nil {
		return event{}
	}
	if e.Message == "instance started" {
		s.groups = append(s.groups, processgroup.Seen(e.Pid))
	}
	return e
}

// await reads the log up to the first event whose message begins with one of messages.
func (s *server) await(ctx context.Context, messages ...string) event {
	s.t.Helper()
	for {
		select {
		case e := <-s.events:
			for _, message := range messages {
				if strings.HasPrefix(e.Message, message) {
					return e
				}
			}
		case <-ctx.Done():
			s.t.Fatalf("the log has no %q: %v", messages, ctx.Err())
		}
	}
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop sends TERM and returns the exit status.
func (s *server) stop(ctx context.Context) int {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	defer context.AfterFunc(ctx, func() { s.cmd.Process.Kill() })()
	s.cmd.Wait() // its error is the status
	return s.cmd.ProcessState.ExitCode()
}

// left waits until no process has the server's stderr any more, and returns the process groups that are there still.
func (s *server) left(ctx context.Context) (groups []int) {
	s.t.Helper()
	select {
	case <-s.closed:
	case <-ctx.Done():
		s.t.Error("a process has the server's stderr still")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range s.groups {
		if group.Remains() {
			groups = append(groups, group.ID)
		}
	}
	return groups
}

// end makes grace end everything at once if a test has failed before its stop, and shows what was said.
func (s *server) end() {
	if s.cmd.ProcessState == nil {
		s.cmd.Process.Signal(syscall.SIGQUIT)
		defer time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() }).Stop()
		s.cmd.Wait()
	}
	if s.t.Failed() {
		s.mu.Lock()
		defer s.mu.Unlock()
		text := s.lines.String()
		s.t.Logf("%s", text[max(0, len(text)-8000):])
	}
}

// searchPath is PATH with the directories that Debian keeps from ordinary users.
func searchPath() string { return os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin" }

// find returns a program, which may have a version in its name, as in php-fpm8.2.
func find(program string) (path string) {
	for _, dir := range filepath.SplitList(searchPath()) {
		found, _ := filepath.Glob(filepath.Join(dir, program) + "*")
		for _, path := range found {
			if strings.TrimRight(filepath.Base(path), "0123456789.") == program {
				return path
			}
		}
	}
	return ""
}
