package drain

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff"
	"golang.org/x/sys/unix"
)

var (
	replacements = flag.Int("replacements", 5, "how often the load tests replace the server")
	clients      = flag.Int("clients", 200, "how many clients the load tests have")
	think        = flag.Duration("think", 4*time.Millisecond, "how long a client waits at most between two requests")
)

// serveUntilStopped is the app of the load tests. It answers a POST with its pid and the body.
func serveUntilStopped(serve func(*http.Server, net.Listener) error) {
	ln, err := handoff.Listen("tcp", os.Getenv("ADDR"))
	if err == nil {
		err = serve(&http.Server{Handler: http.HandlerFunc(echoWithPid)}, ln)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echoWithPid(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, os.Getpid())
	io.Copy(w, r.Body)
}

func drainingServe(srv *http.Server, ln net.Listener) error { return Serve(srv, ln) }

// plainShutdown is what net/http documents.
func plainShutdown(srv *http.Server, ln net.Listener) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go srv.Serve(ln)
	if err := handoff.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return srv.Shutdown(context.Background())
}

// supervisor holds one listener and hands it to one server after the other.
type supervisor struct {
	t      *testing.T
	role   string
	ln     *net.TCPListener
	notify *net.UnixConn
}

func newSupervisor(t *testing.T, role string) *supervisor {
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); notify.Close() })
	return &supervisor{t, role, ln, notify}
}

// start returns once the server says that it is ready.
func (s *supervisor) start() *exec.Cmd {
	s.t.Helper()
	addr := s.ln.Addr().String()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+s.role, "ADDR="+addr, "SERVER_STARTER_PORT="+addr+"=3",
		"NOTIFY_SOCKET="+s.notify.LocalAddr().String(), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = s.t.Output()
	cmd.ExtraFiles = []*os.File{s.file()}
	defer cmd.ExtraFiles[0].Close()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.awaitReady()
	return cmd
}

// awaitReady passes over what the server before has said of its drain.
func (s *supervisor) awaitReady() {
	s.t.Helper()
	s.notify.SetReadDeadline(time.Now().Add(testTimeout))
	for message := make([]byte, 100); ; {
		n, err := s.notify.Read(message)
		said := string(message[:n])
		if said == "READY=1" {
			return
		}
		if said != "STOPPING=1" && said != "X_GRACE_DRAINS=1" && !strings.HasPrefix(said, "X_GRACE_INFLIGHT=") && !strings.HasPrefix(said, "STATUS=draining, ") {
			s.t.Fatalf("instead of READY=1 came %q, %v", said, err)
		}
	}
}

// file duplicates the listener. TCPListener.File would make exec.Cmd switch the socket to blocking for all servers.
func (s *supervisor) file() *os.File {
	raw, err := s.ln.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	var fd int
	raw.Control(func(original uintptr) { fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		s.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "listener")
}

func (s *supervisor) stop(cmd *exec.Cmd) {
	s.t.Helper()
	cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(testTimeout, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("a server ended with %v", err)
	}
}

// load is what keep-alive clients do and see. They never look at a connection before they write to it, nor repeat a
// request.
type load struct {
	addr     net.Addr
	stopped  atomic.Bool
	answered atomic.Int64
	progress wakeup
	clients  sync.WaitGroup

	mu       sync.Mutex
	failures map[string]int
	pids     map[string]bool
}

func startLoad(addr net.Addr) *load {
	l := &load{addr: addr, progress: newWakeup(), failures: map[string]int{}, pids: map[string]bool{}}
	for n := range *clients {
		l.clients.Go(func() { l.run(fmt.Sprint("request of client ", n)) })
	}
	return l
}

func (l *load) run(body string) {
	var c *client
	for !l.stopped.Load() {
		var err error
		if c == nil {
			if c, err = dial(l.addr); err != nil {
				l.fail(err)
				continue
			}
		}
		time.Sleep(rand.N(*think))
		if !l.request(c, body) {
			c.conn.Close()
			c = nil
		}
	}
	if c != nil {
		c.conn.Close()
	}
}

// request tells whether the connection can be used again.
func (l *load) request(c *client, body string) bool {
	answer, last, err := c.post("/", body)
	pid, rest, _ := strings.Cut(answer, "\n")
	if err == nil && rest != body {
		err = fmt.Errorf("the answer is %q", answer)
	}
	if err != nil {
		l.fail(err)
		return false
	}
	l.mu.Lock()
	l.pids[pid] = true
	l.mu.Unlock()
	l.answered.Add(1)
	l.progress.wake()
	return !last
}

func (l *load) fail(err error) {
	kind := err
	if opErr, ok := err.(*net.OpError); ok {
		kind = opErr.Err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures[kind.Error()]++
}

// await returns after n more answers.
func (l *load) await(t *testing.T, n int64) {
	t.Helper()
	timeout := time.After(testTimeout)
	for until := l.answered.Load() + n; l.answered.Load() < until; {
		select {
		case <-l.progress:
		case <-timeout:
			t.Fatal("the clients get no answers any more")
		}
	}
}

// replaceUnderLoad returns how many requests failed.
func replaceUnderLoad(t *testing.T, role string) (failed int) {
	s := newSupervisor(t, role)
	current := s.start()
	l := startLoad(s.ln.Addr())
	l.await(t, int64(5**clients))
	for range *replacements {
		next := s.start()
		s.stop(current)
		current = next
		l.await(t, int64(5**clients))
	}
	l.stopped.Store(true)
	l.clients.Wait()
	s.stop(current)
	for _, n := range l.failures {
		failed += n
	}
	t.Logf("%d clients, %d replacements: %d requests answered, %d failed %v",
		*clients, *replacements, l.answered.Load(), failed, l.failures)
	if len(l.pids) != *replacements+1 {
		t.Errorf("%d servers answered, not %d", len(l.pids), *replacements+1)
	}
	return failed
}

func TestReplacedServersLoseNothing(t *testing.T) {
	if failed := replaceUnderLoad(t, "server that drains"); failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
}

// TestPlainShutdownLoses shows that the test above can fail.
func TestPlainShutdownLoses(t *testing.T) {
	if failed := replaceUnderLoad(t, "server that shuts down"); failed == 0 {
		t.Error("no request failed")
	}
}
