package sse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/drain"
)

// until sends what comes and returns when its context ends.
func until(events <-chan Event) func(*Stream, *http.Request) error {
	return func(s *Stream, r *http.Request) error {
		for {
			select {
			case e := <-events:
				if err := s.Send(e); err != nil {
					return err
				}
			case <-r.Context().Done():
				return context.Cause(r.Context())
			}
		}
	}
}

func TestStreamBeginsAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		events := make(chan Event)
		c := serve(t, http2, Handler(until(events), RetryAfterFailure(7*time.Millisecond, 0))).get("")
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
		} {
			if got := c.resp.Header.Get(name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
		if c.resp.StatusCode != http.StatusOK || c.resp.Close == http2 {
			t.Errorf("status %d, closes %v", c.resp.StatusCode, c.resp.Close)
		}
		events <- Event{Data: "first"}
		c.mustGet("first")
		if c.retry != 7*time.Millisecond {
			t.Errorf("a broken stream is to be opened again after %v", c.retry)
		}
	})
}

func TestLastEventID(t *testing.T) {
	srv := serve(t, false, Handler(func(s *Stream, _ *http.Request) error {
		return s.Send(Event{Data: "after " + s.LastEventID()})
	}))
	for _, c := range []struct{ query, header, want string }{
		{"", "", "after "},
		{"", "7", "after 7"},
		{"?lastEventId=5", "", "after 5"},
		{"?lastEventId=5", "7", "after 7"},
	} {
		get(t, srv.Client(), srv.URL+"/"+c.query, c.header).mustGet(c.want)
	}
}

func TestDrainEndsTheStream(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		cause := make(chan error, 1)
		log := &logged{}
		srv := serve(t, http2, Handler(func(s *Stream, r *http.Request) error {
			if err := s.Send(Event{ID: "1", Data: "first"}); err != nil {
				return err
			}
			<-r.Context().Done()
			cause <- s.Send(Event{Data: "too late"})
			return context.Cause(r.Context())
		}, Retry(20*time.Millisecond, 30*time.Millisecond), log.option()))
		c := srv.get("")
		c.mustGet("first")
		srv.drain.Drain()
		c.mustEnd()
		if err := receive(t, cause); !errors.Is(err, drain.ErrDraining) {
			t.Errorf("Send fails with %v", err)
		}
		if c.retry < 20*time.Millisecond || c.retry > 30*time.Millisecond {
			t.Errorf("the client is to come back after %v", c.retry)
		}
		if log.String() != "" {
			t.Errorf("the log says %s", log)
		}
	})
}

func TestClientsComeBackOneByOne(t *testing.T) {
	waits := map[string]bool{}
	for range 100 {
		waits[string(newOptions(nil).afterDrain.frame())] = true
	}
	if len(waits) < 10 {
		t.Errorf("100 clients come back at %d moments", len(waits))
	}
}

func TestRequestDuringTheDrainIsToldToComeBack(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		srv := serve(t, http2, Handler(func(*Stream, *http.Request) error {
			t.Error("the stream was begun")
			return nil
		}, Retry(3*time.Millisecond, 0)))
		srv.drain.Drain()
		receive(t, srv.drain.Draining())
		c := srv.get("")
		c.mustEnd()
		if c.retry != 3*time.Millisecond {
			t.Errorf("the client is to come back after %v", c.retry)
		}
	})
}

func TestDrainFinishesTheStream(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		events := make(chan Event)
		srv := serve(t, http2, Handler(func(s *Stream, r *http.Request) error {
			for e := range events {
				if err := s.Send(e); err != nil {
					return err
				}
			}
			return nil
		}, Finish(), RetryAfterFailure(time.Minute, 0)))
		c := srv.get("")
		events <- Event{Data: "before"}
		c.mustGet("before")
		srv.drain.Drain()
		receive(t, srv.drain.Draining())
		for range 2 {
			events <- Event{Data: "during"}
			c.mustGet("during")
		}
		close(events)
		c.mustEnd()
		if c.retry != time.Minute {
			t.Errorf("the client is to come back after %v", c.retry)
		}
	})
}

// A server of drain's own ends streams after ordinary requests.
func TestServeEndsTheStreamAndReturns(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events, result := make(chan Event, 1), make(chan error, 1)
	go func() {
		result <- drain.Serve(&http.Server{Handler: Handler(until(events))}, ln, drain.Context(ctx), drain.Signals(), drain.Log(quiet()))
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := get(t, &http.Client{Transport: transport}, "http://"+ln.Addr().String(), "")
	events <- Event{Data: "first"}
	c.mustGet("first")
	cancel()
	c.mustEnd()
	if c.retry > time.Second {
		t.Errorf("the client is to come back after %v", c.retry)
	}
	if err := receive(t, result); err != nil {
		t.Error(err)
	}
}

// While ordinary requests are finished, a connection that is open still may bring a request for a stream.
func TestStreamThatComesWhileRequestsAreFinished(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begun, finish := make(chan (<-chan struct{}), 1), make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/events", Handler(until(nil)))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		begun <- drain.Draining(r.Context())
		<-finish
	})
	mux.HandleFunc("/fast", func(http.ResponseWriter, *http.Request) {})
	result := make(chan error, 1)
	go func() {
		result <- drain.Serve(&http.Server{Handler: mux}, ln, drain.Context(ctx), drain.Signals(), drain.Log(quiet()), drain.Linger(testTimeout))
	}()
	slow, open := dial(t, ln), dial(t, ln)
	open.ask(t, "/fast")
	fmt.Fprint(slow.Conn, request("/slow"))
	draining := receive(t, begun)
	cancel()
	receive(t, draining)
	resp := open.ask(t, "/events")
	checkMessages(t, newParser(resp.Body), nil)
	close(finish)
	slow.receive(t)
	slow.Close()
	if err := receive(t, result); err != nil {
		t.Error(err)
	}
}

// connection is one of HTTP/1.1 that is used again.
type connection struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, ln net.Listener) connection {
	t.Helper()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testTimeout))
	return connection{conn, bufio.NewReader(conn)}
}

func request(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n" }

func (c connection) ask(t *testing.T, path string) *http.Response {
	t.Helper()
	fmt.Fprint(c.Conn, request(path))
	return c.receive(t)
}

func (c connection) receive(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestHeartbeat(t *testing.T) {
	for name, test := range map[string]struct {
		opts          []Option
		silence       time.Duration
		rounds, beats int
	}{
		"the usual one":         {nil, 50 * time.Second, 1, 3},
		"only in silence":       {nil, 14 * time.Second, 10, 0},
		"begins anew":           {nil, 20 * time.Second, 3, 3},
		"another":               {[]Option{Heartbeat(time.Second)}, 4500 * time.Millisecond, 1, 4},
		"none":                  {[]Option{Heartbeat(0)}, 1000 * time.Hour, 1, 0},
		"also while it is long": {[]Option{Finish()}, 31 * time.Second, 2, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				response := httptest.NewRecorder()
				Handler(func(s *Stream, _ *http.Request) error {
					for range test.rounds {
						time.Sleep(test.silence)
						if err := s.Send(Event{Data: "x"}); err != nil {
							return err
						}
					}
					return nil
				}, test.opts...).ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/", nil))
				if beats := strings.Count(response.Body.String(), ": keep-alive\n\n"); beats != test.beats {
					t.Errorf("%d heartbeats: %q", beats, response.Body)
				}
			})
		})
	}
}

func TestClientThatDoesNotReadIsGivenUp(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		result, cause := make(chan error, 1), make(chan error, 1)
		log := &logged{}
		srv := serve(t, http2, Handler(func(s *Stream, r *http.Request) error {
			for data := strings.Repeat("x", 1<<20); ; {
				if err := s.Send(Event{Data: data}); err != nil {
					result <- err
					cause <- context.Cause(r.Context())
					return err
				}
			}
		}, WriteTimeout(time.Second), log.option()))
		c := srv.get("")
		err := receive(t, result)
		// Over HTTP/2 the stream is reset, which ends the context too, maybe first.
		reset := strings.Contains(err.Error(), "cannot reach the client") || errors.Is(err, context.Canceled)
		if !errors.Is(err, os.ErrDeadlineExceeded) && !(http2 && reset) {
			t.Errorf("Send fails with %v", err)
		}
		if receive(t, cause) == nil {
			t.Error("the context goes on")
		}
		c.stop()
		if log.String() != "" {
			t.Errorf("the log says %s", log)
		}
	})
}

// A heartbeat finds out too, so that a function that waits for its context goes on.
func TestSilentStreamFindsOutThatItsClientIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &deaf{ResponseRecorder: httptest.NewRecorder()}
		Handler(func(s *Stream, r *http.Request) error {
			w.gone.Store(true)
			<-r.Context().Done()
			if err := context.Cause(r.Context()); !errors.Is(err, errDeaf) {
				t.Errorf("the context ends with %v", err)
			}
			if err := s.Send(Event{Data: "x"}); !errors.Is(err, errDeaf) {
				t.Errorf("Send fails with %v", err)
			}
			return nil
		}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	})
}

// deaf is a ResponseWriter whose client leaves.
type deaf struct {
	*httptest.ResponseRecorder
	gone atomic.Bool
}

var errDeaf = errors.New("nobody listens")

func (d *deaf) Write(p []byte) (int, error) {
	if d.gone.Load() {
		return 0, errDeaf
	}
	return d.ResponseRecorder.Write(p)
}

func TestStreamOutlivesTheTimeoutsOfItsServer(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		const timeout = 2 * time.Second // enough for a handshake on a busy machine
		srv := serveWith(t, http2, Handler(func(s *Stream, r *http.Request) error {
			if err := s.Send(Event{Data: "first"}); err != nil {
				return err
			}
			select {
			case <-time.After(timeout * 3 / 2):
			case <-r.Context().Done():
				return nil
			}
			return s.Send(Event{Data: "second"})
		}, WriteTimeout(timeout)), func(srv *http.Server) { srv.ReadTimeout, srv.WriteTimeout = timeout, timeout })
		c := srv.get("")
		c.mustGet("first", "second")
		c.mustEnd()
	})
}

type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestWrappedResponseWriter(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		events := make(chan Event)
		h := Handler(until(events))
		srv := serve(t, http2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(wrapper{wrapper{w}}, r)
		}))
		c := srv.get("")
		events <- Event{Data: "first"}
		c.mustGet("first")
		srv.drain.Drain()
		c.mustEnd()
	})
}

func TestResponseWriterThatCannotFlush(t *testing.T) {
	log := &logged{}
	h := Handler(func(*Stream, *http.Request) error {
		t.Error("the stream was begun")
		return nil
	}, log.option())
	c := serve(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})).get("")
	if c.resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("status %d", c.resp.StatusCode)
	}
	if !strings.Contains(log.String(), "neither Flush nor Unwrap") {
		t.Errorf("the log says %q", log)
	}
}

func TestErrorOfTheFunctionIsLogged(t *testing.T) {
	for want, err := range map[string]error{"no database": errors.New("no database"), "": nil} {
		log := &logged{}
		srv := serve(t, false, Handler(func(*Stream, *http.Request) error { return err }, log.option()))
		srv.get("").mustEnd()
		srv.Close()
		if got := log.String(); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("the log says %q, want %q", got, want)
		}
	}
}

func TestClientThatLeavesEndsTheContext(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		log, ended := &logged{}, make(chan error, 1)
		c := serve(t, http2, Handler(func(s *Stream, r *http.Request) error {
			if err := s.Send(Event{Data: "first"}); err != nil {
				return err
			}
			<-r.Context().Done()
			ended <- r.Context().Err()
			return errors.New("it has left")
		}, log.option())).get("")
		c.mustGet("first") // the function is not called for one that leaves before
		c.stop()
		if err := receive(t, ended); err != context.Canceled {
			t.Errorf("the context ends with %v", err)
		}
		if log.String() != "" {
			t.Errorf("the log says %s", log)
		}
	})
}

func TestEventsOfManyGoroutinesAreWhole(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		const senders, each = 8, 50
		c := serve(t, http2, Handler(func(s *Stream, _ *http.Request) error {
			var running sync.WaitGroup
			for from := range senders {
				running.Go(func() {
					for n := range each {
						if err := s.Send(Event{Name: fmt.Sprint(from), Data: fmt.Sprintf("%d\n%d", n, n)}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			running.Wait()
			return nil
		}, Heartbeat(time.Microsecond))).get("")
		next := map[string]int{}
		for range senders * each {
			m, err := c.next()
			if want := fmt.Sprintf("%d\n%d", next[m.name], next[m.name]); err != nil || m.data != want {
				t.Fatalf("got %q, %v; want %q", m, err, want)
			}
			next[m.name]++
		}
		c.mustEnd()
	})
}

func TestNothingIsSentAfterTheEnd(t *testing.T) {
	left := make(chan *Stream, 1)
	c := serve(t, false, Handler(func(s *Stream, _ *http.Request) error {
		left <- s
		return nil
	})).get("")
	c.mustEnd()
	if err := receive(t, left).Send(Event{Data: "x"}); !errors.Is(err, errEnded) {
		t.Errorf("Send returns %v", err)
	}
}

// synctest fails if a goroutine is left.
func TestPanicLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		declared := true
		defer func() {
			if got := recover(); got != http.ErrAbortHandler {
				t.Errorf("the panic is %v", got)
			}
			if declared {
				t.Error("the drain believes that the stream goes on")
			}
		}()
		declare := func(o *options) {
			o.stream = func(context.Context) (<-chan struct{}, func()) { return nil, func() { declared = false } }
		}
		Handler(func(*Stream, *http.Request) error { panic(http.ErrAbortHandler) }, declare).
			ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	})
}

// limited is a ResponseWriter that knows its deadline.
type limited struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (l *limited) SetWriteDeadline(t time.Time) error {
	l.until = t
	return nil
}

// net/http writes the end of the response after the handler, which a client that does not read must not hold.
func TestEndOfTheResponseIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &limited{ResponseRecorder: httptest.NewRecorder()}
		Handler(func(*Stream, *http.Request) error {
			if !w.until.IsZero() {
				t.Error("a silent stream has a deadline")
			}
			time.Sleep(time.Hour)
			return nil
		}, Heartbeat(0), WriteTimeout(time.Second)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if left := time.Until(w.until); left != time.Second {
			t.Errorf("the end may take %v", left)
		}
	})
}

// A client may ask for the next thing on a connection that it believes to be open: it must not be led there.
func TestConnectionEndsWithTheStream(t *testing.T) {
	srv := serve(t, false, Handler(func(s *Stream, _ *http.Request) error { return s.Send(Event{Data: "all"}) }))
	conn := dial(t, srv.Listener)
	checkMessages(t, newParser(conn.ask(t, "/").Body), []message{{"", "message", "all"}})
	if b, err := conn.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on with %q, %v", b, err)
	}
}

// Over HTTP/2 the other streams of the connection go on, and so does the connection.
func TestConnectionOutlivesTheStream(t *testing.T) {
	events := make(chan Event)
	mux := http.NewServeMux()
	mux.Handle("/", Handler(until(events)))
	mux.Handle("/short", Handler(func(*Stream, *http.Request) error { return nil }))
	srv := serve(t, true, mux)
	first := srv.get("")
	get(t, srv.Client(), srv.URL+"/short", "").mustEnd()
	events <- Event{Data: "first"}
	first.mustGet("first")
	if n := srv.connections.Load(); n != 1 {
		t.Errorf("%d connections for 2 streams", n)
	}
}
