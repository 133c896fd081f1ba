package drain

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// begin has requests in flight until their channel is closed.
func begin(d *Drain, n int, finish <-chan struct{}) {
	begun := make(chan struct{})
	handler := d.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { begun <- struct{}{}; <-finish }))
	for range n {
		go handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		<-begun
	}
}

var message = regexp.MustCompile(`msg="([^"]*)"`)

func mustLog(t *testing.T, log fmt.Stringer, want ...string) {
	t.Helper()
	var got []string
	for _, match := range message.FindAllStringSubmatch(log.String(), -1) {
		got = append(got, match[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log says %q, not %q", got, want)
	}
}

func TestLogTellsHowTheDrainGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, log := newQuiet()
		finish := make(chan struct{})
		begin(d, 2, finish)
		d.On(Requests, "framework", func(context.Context) error {
			time.Sleep(2500 * time.Millisecond)
			close(finish)
			return nil
		})
		d.Drain()
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
		mustLog(t, log, "start draining (2 in flight)", "draining... (2 in flight)", "draining... (2 in flight)", "drained in 2.5s")
	})
}

func TestLogTellsWhatWasGivenUp(t *testing.T) {
	t.Run("by a framework", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, log := newQuiet(Timeout(1500 * time.Millisecond))
			finish := make(chan struct{})
			defer close(finish)
			begin(d, 3, finish)
			d.On(Requests, "framework", hangs(t))
			d.Drain()
			d.Wait()
			mustLog(t, log, "start draining (3 in flight)", "draining... (3 in flight)",
				"step did not end in time", "gave up after 1.5s (3 in flight)")
		})
	})
	for name, tt := range map[string]struct {
		paths []string
		short Phase
	}{
		"a request by Serve":                    {[]string{"/request"}, Requests},
		"but not streams that ended":            {[]string{"/request", "/stream", "/stream"}, Requests},
		"a stream that does not end":            {[]string{"/request?stream"}, Streams},
		"a hijacked connection that is open":    {[]string{"/hijacked"}, Streams},
		"a WebSocket whose client is not there": {[]string{"/hijacked?websocket"}, Streams},
	} {
		t.Run(name, func(t *testing.T) {
			d, log := newQuiet(PhaseTimeout(tt.short, time.Millisecond))
			ln, begun := listen(t), make(chan struct{})
			mustStart(t, d, &http.Server{Handler: endless(begun)}, ln)
			for _, path := range tt.paths {
				if err := connect(t, ln.Addr()).send(path, ""); err != nil {
					t.Fatal(err)
				}
				receive(t, begun)
			}
			d.Drain()
			d.Wait()
			if log := log.String(); !strings.Contains(log, "s (1 in flight)\" unfinished=") || strings.Contains(log, "drained") {
				t.Errorf("the log does not tell of the one that was given up:\n%s", log)
			}
		})
	}
}

// endless has requests that end when they are cut, and streams that end when they are told to.
func endless(begun chan<- struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/request", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "stream" {
			_, ended := Stream(r.Context())
			defer ended()
		}
		begun <- struct{}{}
		<-r.Context().Done()
	})
	mux.HandleFunc("/stream", func(_ http.ResponseWriter, r *http.Request) {
		ending, ended := Stream(r.Context())
		defer ended()
		begun <- struct{}{}
		<-ending
	})
	mux.HandleFunc("/hijacked", func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Upgrade", r.URL.RawQuery)
		conn, _, err := http.NewResponseController(w).Hijack()
		begun <- struct{}{}
		if err == nil {
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	})
	return mux
}

func TestInFlightIsRightHoweverARequestEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		leave   bool // the client goes away before the answer
	}{
		"answered": {func(http.ResponseWriter, *http.Request) {}, false},
		"panic":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
		"the client leaves": {func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, true},
		"hijacked": {func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newQuiet()
			during, ended := make(chan int, 1), make(chan struct{})
			counted := d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				during <- d.InFlight()
				tt.handler(w, r)
			}))
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				counted.ServeHTTP(w, r)
			}))
			defer srv.Close()
			c := connect(t, srv.Listener.Addr())
			if err := c.send("/", ""); err != nil {
				t.Fatal(err)
			}
			if n := receive(t, during); n != 1 {
				t.Errorf("%d are in flight during the request", n)
			}
			if tt.leave {
				c.conn.Close()
			}
			receive(t, ended)
			if n := d.InFlight(); n != 0 {
				t.Errorf("%d are in flight after the request", n)
			}
			d.Drain()
			receive(t, d.Done())
		})
	}
}

func notifySocket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.Close() })
	notify.SetReadDeadline(time.Now().Add(testTimeout))
	t.Setenv("NOTIFY_SOCKET", path)
	return notify
}

// mustHear checks what the supervisor is told next.
func mustHear(t *testing.T, notify *net.UnixConn, want string) {
	t.Helper()
	message := make([]byte, 100)
	n, err := notify.Read(message)
	if got := string(message[:n]); got != want {
		t.Errorf("instead of %s came %q, %v", want, got, err)
	}
}

func TestRequestOfAnotherServerIsInFlight(t *testing.T) {
	d, _ := newQuiet()
	end := d.TrackRequest()
	if n := d.InFlight(); n != 1 {
		t.Errorf("%d are in flight", n)
	}
	end()
	end()
	if n := d.InFlight(); n != 0 {
		t.Errorf("%d are in flight after the end", n)
	}
	d.Drain()
	receive(t, d.Done())
}

func TestSupervisorIsToldWhatIsInFlight(t *testing.T) {
	notify := notifySocket(t)
	d, _ := newQuiet()
	finish := make(chan struct{})
	begin(d, 2, finish)
	d.On(Requests, "framework", func(context.Context) error { <-finish; return nil })
	d.Drain()
	buffer := make([]byte, 100)
	for _, want := range []string{"STOPPING=1", "X_GRACE_INFLIGHT=2", "STATUS=draining, 2 in flight"} {
		if n, err := notify.Read(buffer); string(buffer[:n]) != want {
			t.Errorf("instead of %s came %q, %v", want, buffer[:n], err)
		}
	}
	close(finish)
	receive(t, d.Done())
}

func TestMessageIsSkippedWhileAnotherIsOnItsWay(t *testing.T) {
	d, _ := newQuiet()
	d.notifying <- struct{}{}
	d.Drain()
	receive(t, d.Done())
}

func TestSilenceIsBoundedWhereTheServerSaysNothing(t *testing.T) {
	for name, tt := range map[string]struct{ given, want *http.Server }{
		"nothing":     {&http.Server{}, &http.Server{ReadHeaderTimeout: time.Minute, IdleTimeout: 11 * time.Minute}},
		"all reading": {&http.Server{ReadTimeout: time.Second}, &http.Server{ReadTimeout: time.Second}},
		"both": {
			&http.Server{ReadHeaderTimeout: 3, IdleTimeout: -1},
			&http.Server{ReadHeaderTimeout: 3, IdleTimeout: -1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			setTimeouts(tt.given)
			got := [...]time.Duration{tt.given.ReadTimeout, tt.given.ReadHeaderTimeout, tt.given.IdleTimeout}
			want := [...]time.Duration{tt.want.ReadTimeout, tt.want.ReadHeaderTimeout, tt.want.IdleTimeout}
			if got != want {
				t.Errorf("it becomes %v, not %v", got, want)
			}
		})
	}
}

func TestServeBoundsTheSilence(t *testing.T) {
	d, _ := newQuiet()
	srv := &http.Server{}
	mustStart(t, d, srv, listen(t))
	if srv.IdleTimeout != idleTimeout || srv.HTTP2.WriteByteTimeout != writeByteTimeout {
		t.Errorf("it is %v, and %v for a byte", srv.IdleTimeout, srv.HTTP2.WriteByteTimeout)
	}
	d.Drain()
	receive(t, d.Done())
}

// nowhere is as much of net/http's own ResponseWriter as costs nothing.
type nowhere struct {
	http1Writer
	header http.Header
}

func (w nowhere) Header() http.Header { return w.header }

func (nowhere) WriteHeader(int) {}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// request gives a function that serves a request as net/http would, and how it asks a client to leave.
func (d *Drain) request(tb testing.TB) func() {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(nil)
	})}
	ln := listen(tb)
	tb.Cleanup(func() { ln.Close() })
	newServer(srv, ln).attach(d, ln)
	near, _ := net.Pipe()
	tb.Cleanup(func() { near.Close() })
	ctx := srv.ConnContext(srv.BaseContext(ln), near)
	var w http.ResponseWriter = nowhere{header: http.Header{}}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	return func() { srv.Handler.ServeHTTP(w, r) }
}

func TestHandlerDoesNotAllocate(t *testing.T) {
	d := New(Signals(), Log(slog.New(slog.DiscardHandler)))
	defer d.Drain()
	if n := testing.AllocsPerRun(100, d.request(t)); n != 0 {
		t.Errorf("a request allocates %v times", n)
	}
}

func BenchmarkHandler(b *testing.B) {
	d := New(Signals(), Log(slog.New(slog.DiscardHandler)))
	defer d.Drain()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		request := d.request(b)
		for pb.Next() {
			request()
		}
	})
}
