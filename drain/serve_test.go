package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const forever = time.Hour

// served is one Serve that a test runs.
type served struct {
	t        *testing.T
	addr     net.Addr
	cancel   context.CancelFunc
	accepted chan (<-chan struct{}) // the drain signal of each accepted connection
	result   chan error
}

// serve runs Serve until the end of the test. It begins the drain by its context, by way of the options it adds.
func serve(t *testing.T, srv *http.Server, ln net.Listener, opts ...Option) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{t, ln.Addr(), cancel, make(chan (<-chan struct{}), 100), make(chan error, 1)}
	srv.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		select {
		case s.accepted <- Draining(ctx):
		default: // a test of so many connections looks at none of them
		}
		return ctx
	}
	go func() { s.result <- Serve(srv, ln, append([]Option{Context(ctx)}, opts...)...) }()
	t.Cleanup(func() {
		cancel()
		ln.Close()
	})
	return s
}

func serveEcho(t *testing.T, opts ...Option) *served {
	t.Helper()
	return serve(t, &http.Server{Handler: http.HandlerFunc(echo)}, listen(t), opts...)
}

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// connect returns when the server has accepted.
func (s *served) connect() (c *client, draining <-chan struct{}) {
	s.t.Helper()
	c = connect(s.t, s.addr)
	return c, receive(s.t, s.accepted)
}

// end checks what Serve returns: nil for "", else an error with these words.
func (s *served) end(want string) {
	s.t.Helper()
	err := receive(s.t, s.result)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		s.t.Errorf("Serve returns %v, want %q", err, want)
	}
}

// receive returns an element, or the zero value of a closed channel.
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

func TestKeepAliveClientIsAskedToLeave(t *testing.T) {
	s := serveEcho(t, Linger(forever))
	c, draining := s.connect()
	c.mustPost(t, "before", false)
	s.cancel()
	receive(t, draining)
	c.mustPost(t, "during", true)
	c.mustEnd(t)
	s.end("")
}

func TestConnectionThatHasSentNothingYetIsServed(t *testing.T) {
	s := serveEcho(t, Linger(forever))
	c, draining := s.connect()
	s.cancel()
	receive(t, draining)
	c.mustPost(t, "first", true)
	c.mustEnd(t)
	s.end("")
}

func TestListenerIsClosedWhileClientsLinger(t *testing.T) {
	s := serveEcho(t, Linger(forever))
	c, _ := s.connect()
	s.cancel()
	for {
		conn, err := net.Dial("tcp", s.addr.String())
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			conn.Close()
		}
	}
	c.mustPost(t, "first", true)
	s.end("")
}

func TestLingerEnds(t *testing.T) {
	for name, request := range map[string]bool{"idle": true, "new": false} {
		t.Run(name, func(t *testing.T) {
			s := serveEcho(t, Linger(time.Millisecond))
			c, _ := s.connect()
			if request {
				c.mustPost(t, "before", false)
			}
			s.cancel()
			c.mustEnd(t)
			s.end("")
		})
	}
}

// A response that was begun before the drain cannot ask the client to leave: its next request has to be served too.
func TestClientOfAnUnfinishedResponseMaySendOnce(t *testing.T) {
	finish := make(chan struct{})
	s := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			http.NewResponseController(w).Flush()
			<-finish
		}
		w.Write(body)
	})}, listen(t), Linger(forever))
	c, draining := s.connect()
	if err := c.send("/slow", "slow"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	s.cancel()
	receive(t, draining)
	close(finish)
	c.mustReceive(t, "slow", false)
	c.mustPost(t, "next", true)
	s.end("")
}

func TestStreamEndsAtTheDrainSignal(t *testing.T) {
	cancelled := make(chan error, 1)
	s := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-Draining(r.Context())
		cancelled <- r.Context().Err()
		io.WriteString(w, "bye")
	})}, listen(t), Linger(time.Millisecond))
	c, _ := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	s.cancel()
	c.mustReceive(t, "bye", false)
	if err := receive(t, cancelled); err != nil {
		t.Errorf("the request's context ended with %v", err)
	}
	s.end("")
}

func TestDrainingWithoutServeNeverComes(t *testing.T) {
	if draining := Draining(context.Background()); draining != nil {
		t.Errorf("it is %v", draining)
	}
}

// hang serves requests until they are cut.
func hang(t *testing.T, opts ...Option) (s *served, draining <-chan struct{}) {
	t.Helper()
	working := make(chan struct{})
	s = serve(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(working)
		<-r.Context().Done()
	})}, listen(t), opts...)
	c, draining := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	receive(t, working)
	return s, draining
}

func TestTimeoutCutsRequests(t *testing.T) {
	s, _ := hang(t, Timeout(time.Millisecond))
	s.cancel()
	s.end("cut unfinished requests (1): the timeout of 1ms has expired")
}

func TestTimeoutOfIdleClientsIsNoError(t *testing.T) {
	s := serveEcho(t, Timeout(time.Millisecond), Linger(forever))
	c, _ := s.connect()
	c.mustPost(t, "before", false)
	s.cancel()
	c.mustEnd(t)
	s.end("")
}

func raise(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

func TestSignalsBeginTheDrain(t *testing.T) {
	for name, tt := range map[string]struct {
		signal syscall.Signal
		opts   []Option
	}{
		"TERM":         {syscall.SIGTERM, nil},
		"INT":          {syscall.SIGINT, nil},
		"USR1 instead": {syscall.SIGUSR1, []Option{Signals(syscall.SIGUSR1)}},
		"QUIT instead": {syscall.SIGQUIT, []Option{Signals(syscall.SIGQUIT)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveEcho(t, append(tt.opts, Linger(forever))...)
			c, draining := s.connect()
			raise(t, tt.signal)
			receive(t, draining)
			c.mustPost(t, "during", true)
			s.end("")
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	s, draining := hang(t)
	raise(t, syscall.SIGTERM)
	receive(t, draining)
	raise(t, syscall.SIGINT)
	s.end("second signal: received SIGINT")
}

func TestQuitEndsAtOnce(t *testing.T) {
	s, _ := hang(t)
	raise(t, syscall.SIGQUIT)
	s.end("received SIGQUIT")
}

// A context of signal.NotifyContext ends by the signal that Serve gets too: that one is not the second.
func TestSignalBehindTheContextIsTheFirst(t *testing.T) {
	s := serveEcho(t, Linger(forever))
	c, draining := s.connect()
	s.cancel()
	receive(t, draining)
	raise(t, syscall.SIGTERM)
	c.mustPost(t, "during", true)
	s.end("")
}

func TestNoSignals(t *testing.T) {
	o := newOptions([]Option{Signals()})
	stop := watch(o)
	defer stop.close()
	other := watch(newOptions(nil)) // keeps the signal from ending the tests
	defer other.close()
	raise(t, syscall.SIGTERM)
	receive(t, other.begin.Done())
	if stop.begin.Err() != nil || len(stop.signals) > 0 {
		t.Error("a signal was handled")
	}
}

func TestServeIsReadyWhenItAccepts(t *testing.T) {
	notify := notifySocket(t)
	s := serveEcho(t)
	mustHear(t, notify, "X_GRACE_DRAINS=1")
	mustHear(t, notify, "READY=1")
	s.cancel()
	s.end("")
}

func TestServeEndsWithItsErrors(t *testing.T) {
	t.Run("handoff.Ready", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "@nobody listens here")
		serveEcho(t).end("cannot announce that the program is ready: cannot tell the supervisor X_GRACE_DRAINS=1")
	})
	t.Run("Accept", func(t *testing.T) {
		ln := listen(t)
		s := serve(t, &http.Server{Handler: http.HandlerFunc(echo)}, ln, Linger(forever))
		c, draining := s.connect()
		c.mustPost(t, "before", false)
		ln.Close()
		receive(t, draining)
		c.mustPost(t, "during", true)
		s.end("use of closed network connection")
	})
}

func TestServerThatItsOwnerShutsDownIsNoError(t *testing.T) {
	srv := &http.Server{Handler: http.HandlerFunc(echo)}
	s := serve(t, srv, listen(t), Linger(forever))
	s.connect()
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	s.end("")
}

func TestHooksOfTheServerGoOnWorking(t *testing.T) {
	type key struct{}
	ln := listen(t)
	states := make(chan http.ConnState, 10)
	values := make(chan any, 1)
	s := serve(t, &http.Server{
		BaseContext: func(l net.Listener) context.Context {
			if l != ln {
				t.Errorf("BaseContext gets %v, not its own listener", l)
			}
			return context.WithValue(context.Background(), key{}, "kept")
		},
		ConnState: func(_ net.Conn, state http.ConnState) { states <- state },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			values <- r.Context().Value(key{})
			echo(w, r)
		}),
	}, ln)
	c, _ := s.connect()
	c.mustPost(t, "one", false)
	if value := receive(t, values); value != "kept" {
		t.Errorf("the context has %v", value)
	}
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle} {
		if state := receive(t, states); state != want {
			t.Errorf("the state is %v, not %v", state, want)
		}
	}
	c.conn.Close()
	s.cancel()
	s.end("")
}

func TestServerWithoutHandlerUsesTheDefaultMux(t *testing.T) {
	s := serve(t, &http.Server{}, listen(t))
	c, _ := s.connect()
	if _, _, err := c.post("/nowhere", ""); err == nil || err.Error() != "status 404 Not Found" {
		t.Error(err)
	}
	c.conn.Close()
	s.cancel()
	s.end("")
}

// A hijacked connection belongs to its hijacker: Serve does not wait for it, nor close it.
func TestHijackedConnectionIsItsHandlersAndWaitedFor(t *testing.T) {
	hijacked := make(chan net.Conn, 1)
	s := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		hijacked <- conn
	})}, listen(t), Linger(forever))
	c, draining := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	conn := receive(t, hijacked)
	s.cancel()
	receive(t, draining)
	io.WriteString(conn, "still here")
	conn.Close()
	s.end("")
	if b, err := io.ReadAll(c.conn); string(b) != "still here" {
		t.Errorf("the client reads %q, %v", b, err)
	}
}

func TestHTTPSClientsLeave(t *testing.T) {
	trusted := httptest.NewTLSServer(nil) // for its certificate and a client that trusts it
	defer trusted.Close()
	for name, protocols := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2.0": func(p *http.Protocols) { p.SetHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			transport := trusted.Client().Transport.(*http.Transport).Clone()
			transport.Protocols = new(http.Protocols)
			protocols(transport.Protocols)
			ln := listen(t)
			d, _ := newQuiet(Linger(forever))
			if err := d.StartTLS(&http.Server{
				Handler:   http.HandlerFunc(echo),
				TLSConfig: &tls.Config{Certificates: trusted.TLS.Certificates},
			}, ln, "", ""); err != nil {
				t.Fatal(err)
			}
			post := func(body string) {
				t.Helper()
				resp, err := transport.RoundTrip(httptest.NewRequest(http.MethodPost, fmt.Sprintf("https://%v/", ln.Addr()), strings.NewReader(body)))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); string(b) != body || resp.Proto != name {
					t.Errorf("%s comes back as %q by %s, %v", body, b, resp.Proto, err)
				}
			}
			post("before")
			d.Drain()
			receive(t, d.Draining())
			if name == "HTTP/1.1" { // one of HTTP/2 is told to leave at once
				post("during")
			}
			if err := d.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTLSWithoutACertificateIsAnError(t *testing.T) {
	if err := ServeTLS(&http.Server{}, listen(t), "missing.pem", "missing.pem"); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("the error is %v", err)
	}
}

// gatedListener accepts nothing before the drain, so that everything waits in the queue.
type gatedListener struct {
	*net.TCPListener
	draining func()
	gate     chan struct{}
}

func newGatedListener(t *testing.T) *gatedListener {
	l := &gatedListener{TCPListener: listen(t), gate: make(chan struct{})}
	l.draining = sync.OnceFunc(func() { close(l.gate) })
	return l
}

func (l *gatedListener) SetDeadline(at time.Time) error {
	defer l.draining()
	return l.TCPListener.SetDeadline(at)
}

func (l *gatedListener) Accept() (net.Conn, error) {
	<-l.gate
	return l.TCPListener.Accept()
}

// A certificate that cannot be read is an error at once, and its socket is nobody's any more.
func TestServeTLSWithoutACertificateEndsAtOnce(t *testing.T) {
	ln, ended := listen(t), make(chan error, 1)
	go func() { ended <- ServeTLS(&http.Server{}, ln, "none.crt", "none.key", Signals(), Timeout(time.Hour)) }()
	if err := receive(t, ended); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it ends with %v", err)
	}
	if conn, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener gives %v, %v", conn, err)
	}
}

// What cannot start is an error at once. It is no end of the other servers, and does not keep Wait from saying Ready.
func TestServerThatCannotStartIsAnError(t *testing.T) {
	closed := &http.Server{}
	closed.Close()
	for name, tt := range map[string]struct {
		start func(*Drain, net.Listener) error
		want  string
	}{
		"a server that was closed": {
			func(d *Drain, ln net.Listener) error { return d.Start(closed, ln) },
			"http: Server closed",
		},
		"a server that was started before": {
			func(d *Drain, ln net.Listener) error {
				srv := &http.Server{}
				mustStart(t, d, srv, listen(t))
				return d.Start(srv, ln)
			},
			"its http.Server was started before",
		},
		"no certificate": {
			func(d *Drain, ln net.Listener) error { return d.StartTLS(&http.Server{}, ln, "none.crt", "none.key") },
			"open none.crt: no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			notify := notifySocket(t)
			d, _ := newQuiet(Linger(time.Millisecond))
			ln := listen(t)
			err := tt.start(d, ln)
			if want := "cannot start server " + ln.Addr().String() + ": "; err == nil || !strings.HasPrefix(err.Error(), want+tt.want) {
				t.Errorf("the error is %v", err)
			}
			if conn, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener gives %v, %v", conn, err)
			}
			other := listen(t)
			mustStart(t, d, &http.Server{Handler: http.HandlerFunc(echo)}, other)
			ended := make(chan error, 1)
			go func() { ended <- d.Wait() }()
			mustHear(t, notify, "X_GRACE_DRAINS=1")
			mustHear(t, notify, "READY=1")
			connect(t, other.Addr()).mustPost(t, "served", false)
			d.Drain()
			if err := receive(t, ended); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestListenAndServeTakesTheServersAddress(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bound := make(chan net.Addr, 1)
	srv := &http.Server{
		Addr:        "127.0.0.1:0",
		Handler:     http.HandlerFunc(echo),
		BaseContext: func(ln net.Listener) context.Context { bound <- ln.Addr(); return context.Background() },
	}
	ended := make(chan error, 1)
	go func() { ended <- ListenAndServe(srv, Context(ctx), Signals(), Linger(time.Millisecond)) }()
	addr := receive(t, bound)
	if host, _, err := net.SplitHostPort(addr.String()); host != "127.0.0.1" || err != nil {
		t.Fatalf("it listens on %v", addr)
	}
	c := connect(t, addr)
	c.mustPost(t, "before", false)
	cancel()
	c.mustEnd(t)
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
}

// The ports may be free here or not, and allowed or not: in each case it is they that are asked for.
func TestListenAndServeHasTheDefaultsOfNetHTTP(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for port, listenAndServe := range map[string]func(*http.Server) error{
		":80": func(srv *http.Server) error { return ListenAndServe(srv, Context(ctx), Signals()) },
		":443": func(srv *http.Server) error {
			return ListenAndServeTLS(srv, "none.crt", "none.key", Context(ctx), Signals())
		},
	} {
		var bound string
		err := listenAndServe(&http.Server{BaseContext: func(ln net.Listener) context.Context {
			bound = ln.Addr().String()
			return context.Background()
		}})
		if err != nil {
			bound = err.Error()
		}
		if !strings.Contains(bound, port) {
			t.Errorf("instead of %s it is %s", port, bound)
		}
	}
}

func TestListenAndServeThatCannotListenIsAnError(t *testing.T) {
	ln := listen(t)
	defer ln.Close()
	srv := &http.Server{Addr: ln.Addr().String()}
	if err := ListenAndServe(srv, Signals()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the error is %v", err)
	}
	if err := ListenAndServeTLS(srv, "none.crt", "none.key", Signals()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the error is %v", err)
	}
}
