package sse

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracerun/grace/drain"
)

// testTimeout bounds every wait of the tests that only a defect makes long.
const testTimeout = 2 * time.Minute

// server is one whose drain is the test's.
type server struct {
	*httptest.Server
	t           *testing.T
	drain       *drain.Drain
	connections atomic.Int64
}

var protocols = map[string]bool{"HTTP/1.1": false, "HTTP/2": true}

func overBoth(t *testing.T, test func(t *testing.T, http2 bool)) {
	for name, http2 := range protocols {
		t.Run(name, func(t *testing.T) { test(t, http2) })
	}
}

func serve(t *testing.T, http2 bool, h http.Handler) *server {
	return serveWith(t, http2, h, func(*http.Server) {})
}

func serveWith(t *testing.T, http2 bool, h http.Handler, change func(*http.Server)) *server {
	t.Helper()
	s := &server{Server: httptest.NewUnstartedServer(h), t: t, drain: drain.New(drain.Signals(), drain.Log(quiet()))}
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		s.connections.Add(1)
		return ctx
	}
	s.Config.BaseContext = func(net.Listener) context.Context { return s.drain.WithDraining(context.Background()) }
	change(s.Config)
	if http2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		s.drain.Drain()
		if err := s.drain.Wait(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client reads one stream.
type client struct {
	*parser
	t    *testing.T
	resp *http.Response
	stop context.CancelFunc
}

func (s *server) get(lastID string) *client {
	s.t.Helper()
	return get(s.t, s.Client(), s.URL, lastID)
}

func get(t *testing.T, h *http.Client, url, lastID string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &client{newParser(resp.Body), t, resp, cancel}
}

func (c *client) mustGet(data ...string) {
	c.t.Helper()
	for _, want := range data {
		m, err := c.next()
		if err != nil || m.data != want {
			c.t.Fatalf("got %q, %v; want %q", m, err, want)
		}
	}
}

// mustEnd checks that the response ends as it should, without another message.
func (c *client) mustEnd() {
	c.t.Helper()
	if m, err := c.next(); err != io.EOF {
		c.t.Fatalf("got %q, %v; want the end", m, err)
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(testTimeout):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// logged is a log that a test reads.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) option() Option { return Log(slog.New(slog.NewTextHandler(l, nil))) }
