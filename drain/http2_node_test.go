package drain

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"testing"

	"github.com/gracerun/grace/internal/requirement"
)

// streamRecorder notes which streams a server gets on each connection.
type streamRecorder struct {
	mu    sync.Mutex
	begun map[int]map[uint32]bool // by the client's port
}

type recordedListener struct {
	net.Listener
	by *streamRecorder
}

func (l recordedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &recordedConn{Conn: conn, by: l.by, preface: len(preface)}, nil
}

func (r *streamRecorder) note(port int, stream uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun[port] == nil {
		r.begun[port] = map[uint32]bool{}
	}
	r.begun[port][stream] = true
}

type recordedConn struct {
	net.Conn
	by      *streamRecorder
	preface int // bytes of it that are to come
	in      frame
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	skipped := min(n, c.preface)
	c.preface -= skipped
	for rest := p[skipped:n]; len(rest) > 0; {
		rest = rest[c.in.pass(rest):]
		if c.in.complete() && c.in.kind() == frameHeaders {
			c.by.note(c.RemoteAddr().(*net.TCPAddr).Port, streamOf(c.in))
		}
	}
	return n, err
}

func streamOf(f frame) uint32 {
	return uint32(f.start[5])<<24 | uint32(f.start[6])<<16 | uint32(f.start[7])<<8 | uint32(f.start[8])
}

// nodeClient is testdata/http2client.js.
type nodeClient struct {
	t        *testing.T
	orders   io.Writer
	said     chan nodeLine
	failures []nodeLine
	answered int
}

type nodeLine struct {
	Failed   string
	Port     int
	Stream   uint32
	Answered int
}

func startNode(t *testing.T) *nodeClient {
	t.Helper()
	node, err := exec.LookPath("node")
	requirement.Check(t, "node", err)
	cmd := exec.Command(node, "testdata/http2client.js")
	cmd.Stderr = t.Output()
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &nodeClient{t: t, orders: orders, said: make(chan nodeLine, 10000)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.read(answers)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait() // it has ended, or was killed
	})
	return c
}

func (c *nodeClient) read(answers io.Reader) {
	defer close(c.said)
	for lines := bufio.NewScanner(answers); lines.Scan(); {
		var line nodeLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			c.t.Errorf("node says %s", lines.Text())
		}
		c.said <- line
	}
}

// tell returns when the client has heeded it.
func (c *nodeClient) tell(order string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.orders, order); err != nil {
		c.t.Fatal(err)
	}
	for {
		line := receive(c.t, c.said)
		switch {
		case line.Failed != "":
			c.failures = append(c.failures, line)
		case line == nodeLine{}:
			c.t.Fatal("node has ended")
		default:
			c.answered = line.Answered
			return
		}
	}
}

// replaceUnderNode replaces a server 20 times, and tells how many streams the client has lost that a server had got.
func replaceUnderNode(t *testing.T, end func(*http2Server)) (lost int) {
	recorder := &streamRecorder{begun: map[int]map[uint32]bool{}}
	client := startNode(t)
	progress := newWakeup()
	start := func() *http2Server {
		s := serveHTTP2(t, false, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			echo(w, r)
			progress.wake()
		})}, recordedListener{listen(t), recorder})
		_, port, _ := net.SplitHostPort(s.addr)
		client.tell(port)
		return s
	}
	current := start()
	for range 20 {
		for range 50 {
			receive(t, progress)
		}
		next := start()
		end(current)
		current = next
	}
	client.tell("end")
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	for _, f := range client.failures {
		if f.Port == 0 || recorder.begun[f.Port][f.Stream] {
			lost++
			t.Logf("lost: %+v", f)
		}
	}
	t.Logf("%d requests answered, %d not sent, %d lost", client.answered, len(client.failures)-lost, lost)
	if client.answered == 0 {
		t.Error("no request was answered")
	}
	return lost
}

// A client on nghttp2 that has queued requests when it reads the first GOAWAY drops them by itself, and says
// REFUSED_STREAM for them. What it has sent is answered.
func TestWhatNodeHasSentIsAnswered(t *testing.T) {
	if lost := replaceUnderNode(t, func(s *http2Server) {
		s.conns.goAway(t.Context())
		s.Shutdown(t.Context())
	}); lost > 0 {
		t.Errorf("%d requests that a server has got were lost", lost)
	}
}

// TestPlainShutdownLosesWhatNodeHasSent shows that the test above can fail.
func TestPlainShutdownLosesWhatNodeHasSent(t *testing.T) {
	if lost := replaceUnderNode(t, func(s *http2Server) { s.Shutdown(t.Context()) }); lost == 0 {
		t.Error("no request was lost")
	}
}
