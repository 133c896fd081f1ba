package drain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// http2Server is a server of one of the two kinds of HTTP/2.
type http2Server struct {
	*http.Server
	conns *http2Conns
	addr  string
}

// startHTTP2 serves until the end of the test.
func startHTTP2(t *testing.T, encrypted bool, srv *http.Server) *http2Server {
	t.Helper()
	return serveHTTP2(t, encrypted, srv, listen(t))
}

func serveHTTP2(t *testing.T, encrypted bool, srv *http.Server, ln net.Listener) *http2Server {
	t.Helper()
	s := &http2Server{srv, newHTTP2Conns(), ln.Addr().String()}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP2(encrypted)
	srv.Protocols.SetUnencryptedHTTP2(!encrypted)
	if encrypted {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{exampleCertificate()}}
	}
	s.conns.attach(srv)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if encrypted {
			srv.ServeTLS(ln, "", "")
		} else {
			srv.Serve(ln)
		}
	}()
	t.Cleanup(func() { srv.Close(); <-ended })
	return s
}

// exampleCertificate is the one of net/http/httptest, for example.com.
var exampleCertificate = sync.OnceValue(func() tls.Certificate {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	return srv.TLS.Certificates[0]
})

func clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	leaf, _ := x509.ParseCertificate(exampleCertificate().Certificate[0])
	roots.AddCert(leaf)
	return &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"h2"}}
}

// http2Client sends each new connection to the server that is current. It cannot repeat a request.
type http2Client struct {
	http.Transport
	scheme  string
	current atomic.Pointer[http2Server]
}

func newHTTP2Client(encrypted bool) *http2Client {
	c := &http2Client{scheme: "http"}
	c.Protocols = new(http.Protocols)
	c.Protocols.SetHTTP2(encrypted)
	c.Protocols.SetUnencryptedHTTP2(!encrypted)
	if encrypted {
		c.scheme, c.TLSClientConfig = "https", clientTLS()
	}
	c.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.current.Load().addr)
	}
	return c
}

func (c *http2Client) post(body string) error {
	req, err := http.NewRequest(http.MethodPost, c.scheme+"://example.com/", struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		return err
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && (string(answer) != body || resp.ProtoMajor != 2) {
		err = fmt.Errorf("the answer is %s %q", resp.Proto, answer)
	}
	return err
}

// unsent is what http.Transport makes of a request that it has not sent: it had chosen a connection for it, but has
// read the GOAWAY before it gave it a stream. By then it has closed the body.
const unsent = "net/http: cannot rewind body after connection loss"

// http2Load is what many goroutines do with one client, and so on one connection at a time.
type http2Load struct {
	http2Client      *http2Client
	stopped          atomic.Bool
	answered, failed atomic.Int64
	unsent           atomic.Int64
	progress         wakeup
	lastFailure      atomic.Value
}

func (l *http2Load) run() {
	for !l.stopped.Load() {
		switch err := l.http2Client.post("a request"); {
		case err == nil:
			l.answered.Add(1)
		case err.Error() == unsent:
			l.unsent.Add(1)
		default:
			l.failed.Add(1)
			l.lastFailure.Store(err.Error())
		}
		l.progress.wake()
	}
}

// await returns after n more answers.
func (l *http2Load) await(t *testing.T, n int64) {
	t.Helper()
	for until := l.answered.Load() + n; l.answered.Load() < until; {
		receive(t, l.progress)
	}
}

// replaceHTTP2 replaces a server 20 times, or until a request has failed.
func replaceHTTP2(t *testing.T, encrypted bool, end func(*http2Server)) (failed int64) {
	start := func() *http2Server { return startHTTP2(t, encrypted, &http.Server{Handler: http.HandlerFunc(echo)}) }
	l := &http2Load{http2Client: newHTTP2Client(encrypted), progress: newWakeup()}
	l.http2Client.current.Store(start())
	var posting sync.WaitGroup
	for range 50 {
		posting.Go(l.run)
	}
	replaced := 0
	for ; replaced < 20 && l.failed.Load() == 0; replaced++ {
		l.await(t, 250)
		end(l.http2Client.current.Swap(start()))
	}
	l.await(t, 250)
	l.stopped.Store(true)
	posting.Wait()
	l.http2Client.CloseIdleConnections()
	t.Logf("%d replacements: %d requests answered, %d not sent, %d failed: %v",
		replaced, l.answered.Load(), l.unsent.Load(), l.failed.Load(), l.lastFailure.Load())
	return l.failed.Load()
}

func TestReplacedHTTP2ServersLoseNothing(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		if failed := replaceHTTP2(t, encrypted, func(s *http2Server) {
			s.conns.goAway(t.Context())
			s.Shutdown(t.Context())
		}); failed > 0 {
			t.Errorf("%d requests failed", failed)
		}
	})
}

// TestPlainShutdownLosesStreams shows that the test above can fail.
func TestPlainShutdownLosesStreams(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		if failed := replaceHTTP2(t, encrypted, func(s *http2Server) { s.Shutdown(t.Context()) }); failed == 0 {
			t.Error("no request failed")
		}
	})
}

const (
	kindData     = 0
	kindSettings = 4
	kindPing     = 6
	kindUpdate   = 8
	endStream    = 1
	ack          = 1
)

// http2Frame is one of those that tests look at.
type http2Frame struct {
	kind, flags byte
	stream      uint32
	payload     string
}

func (f http2Frame) String() string {
	b := []byte{byte(len(f.payload) >> 16), byte(len(f.payload) >> 8), byte(len(f.payload)), f.kind, f.flags}
	return string(binary.BigEndian.AppendUint32(b, f.stream)) + f.payload
}

// lastStream is what a GOAWAY says.
func (f http2Frame) lastStream() uint32 { return binary.BigEndian.Uint32([]byte(f.payload)) }

// rawClient decides itself when it reads and answers what.
type rawClient struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dialHTTP2(t *testing.T, s *http2Server, encrypted bool) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testTimeout))
	if encrypted {
		conn = tls.Client(conn, clientTLS())
	}
	c := &rawClient{t, conn, bufio.NewReader(conn)}
	c.write(preface + http2Frame{kind: kindSettings}.String())
	return c
}

func (c *rawClient) write(bytes string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, bytes); err != nil {
		c.t.Fatal(err)
	}
}

// get opens a stream. Its header block is ":method: GET", ":scheme: http", ":path: /" and ":authority: test".
func (c *rawClient) get(stream uint32) {
	c.t.Helper()
	c.write(http2Frame{frameHeaders, endStream | flagEndHeaders, stream, "\x82\x86\x84\x41\x04test"}.String())
}

func (c *rawClient) read() (http2Frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(c.r, header[:]); err != nil {
		return http2Frame{}, err
	}
	payload := make([]byte, int(header[0])<<16|int(header[1])<<8|int(header[2]))
	_, err := io.ReadFull(c.r, payload)
	return http2Frame{header[3], header[4], binary.BigEndian.Uint32(header[5:]), string(payload)}, err
}

func (c *rawClient) await(kind byte) http2Frame {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("instead of a frame of kind %d comes %v", kind, err)
		}
		if f.kind == kind {
			return f
		}
	}
}

// mustBeAsked reads a GOAWAY that refuses nothing, and returns the PING after it.
func (c *rawClient) mustBeAsked() http2Frame {
	c.t.Helper()
	if last := c.await(frameGoAway).lastStream(); last != 1<<31-1 {
		c.t.Errorf("the first GOAWAY has the last stream %d", last)
	}
	return c.await(kindPing)
}

func (c *rawClient) answer(ping http2Frame) {
	c.t.Helper()
	ping.flags = ack
	c.write(ping.String())
}

// mustEnd returns which streams were answered before the connection ended, and what the last GOAWAY said.
func (c *rawClient) mustEnd() (answered []uint32, last uint32) {
	c.t.Helper()
	for {
		f, err := c.read()
		switch {
		case err == io.EOF:
			return answered, last
		case err != nil:
			c.t.Fatal(err)
		case f.kind == frameHeaders:
			answered = append(answered, f.stream)
		case f.kind == frameGoAway:
			last = f.lastStream()
		}
	}
}

func eachHTTP2(t *testing.T, test func(t *testing.T, encrypted bool)) {
	for name, encrypted := range map[string]bool{"TLS": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, encrypted)
		})
	}
}

func TestStreamThatCrossesTheGoAwayIsServed(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		s := startHTTP2(t, encrypted, &http.Server{Handler: http.HandlerFunc(echo)})
		c := dialHTTP2(t, s, encrypted)
		c.get(1)
		c.await(frameHeaders)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.conns.goAway(t.Context())
			s.Shutdown(t.Context())
		}()
		ping := c.mustBeAsked()
		c.get(3)
		c.answer(ping)
		if answered, last := c.mustEnd(); !slices.Equal(answered, []uint32{3}) || last != 3 {
			t.Errorf("%v are answered, and the last GOAWAY has the last stream %d", answered, last)
		}
		receive(t, ended)
	})
}

// TestStreamThatCrossesShutdownIsLost shows that the test above can fail.
func TestStreamThatCrossesShutdownIsLost(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		s := startHTTP2(t, encrypted, &http.Server{Handler: http.HandlerFunc(echo)})
		c := dialHTTP2(t, s, encrypted)
		c.get(1)
		c.await(frameHeaders)
		go s.Shutdown(t.Context())
		if last := c.await(frameGoAway).lastStream(); last != 1 {
			t.Errorf("the only GOAWAY has the last stream %d", last)
		}
		c.get(3)
		if answered, _ := c.mustEnd(); answered != nil {
			t.Errorf("%v are answered", answered)
		}
	})
}

func TestLateConnectionIsAskedAfterItsSettings(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		s := startHTTP2(t, encrypted, &http.Server{Handler: http.HandlerFunc(echo)})
		s.conns.goAway(t.Context())
		c := dialHTTP2(t, s, encrypted)
		if f, err := c.read(); f.kind != kindSettings {
			t.Errorf("first comes %+v, %v", f, err)
		}
		c.answer(c.mustBeAsked())
		c.get(1)
		c.await(frameHeaders)
		go s.Shutdown(t.Context())
		if _, last := c.mustEnd(); last != 1 {
			t.Errorf("the last GOAWAY has the last stream %d", last)
		}
	})
}

func TestStreamUnderWayIsFinished(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		begun, finish := make(chan struct{}), make(chan struct{})
		s := startHTTP2(t, encrypted, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(begun)
			<-finish
		})})
		c := dialHTTP2(t, s, encrypted)
		c.get(1)
		receive(t, begun)
		told := make(chan struct{})
		go func() { s.conns.goAway(t.Context()); close(told) }()
		c.answer(c.mustBeAsked())
		receive(t, told)
		close(finish)
		if answered, _ := c.mustEnd(); !slices.Equal(answered, []uint32{1}) {
			t.Errorf("%v are answered", answered)
		}
	})
}

func TestHTTP1BesideHTTP2GoesOn(t *testing.T) {
	ln := listen(t)
	srv := &http.Server{Handler: http.HandlerFunc(echo), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	conns := newHTTP2Conns()
	conns.attach(srv)
	go srv.Serve(ln)
	defer srv.Close()
	c := connect(t, ln.Addr())
	c.mustPost(t, "before", false)
	other := dialHTTP2(t, &http2Server{srv, conns, ln.Addr().String()}, false)
	other.await(kindSettings)
	go func() { other.answer(other.mustBeAsked()) }()
	conns.goAway(t.Context())
	c.mustPost(t, "after", false)
}

func TestGoAwayTakesAsLongAsTheClientsNeed(t *testing.T) {
	for name, tt := range map[string]struct {
		client func(far net.Conn)
		want   time.Duration
	}{
		"nobody there":   {nil, 0},
		"no answer":      {func(far net.Conn) { io.Copy(io.Discard, far) }, pingTimeout},
		"a wrong answer": {func(far net.Conn) { answerLate(far, "anything") }, pingTimeout},
		"an answer":      {func(far net.Conn) { answerLate(far, "draining") }, firstRequestDelay + time.Second + lateStreamDelay},
		"the client leaves": {func(far net.Conn) {
			go io.Copy(io.Discard, far)
			time.Sleep(time.Second)
			far.Close()
		}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newHTTP2Conns()
				if tt.client != nil {
					near, far := net.Pipe()
					conn := c.add(near)
					go tt.client(far)
					go func() {
						defer c.remove(conn)
						io.Copy(io.Discard, conn)
					}()
					go io.WriteString(conn, http2Frame{kind: kindSettings}.String())
					synctest.Wait()
					defer far.Close()
				}
				begun := time.Now()
				c.goAway(t.Context())
				if took := time.Since(begun); took != tt.want {
					t.Errorf("it took %v, not %v", took, tt.want)
				}
			})
		})
	}
}

// answerLate answers a second after the PING, in two parts and with something else around it.
func answerLate(far net.Conn, data string) {
	io.CopyN(io.Discard, far, int64(headerSize+len(goAwayFrame+pingFrame)))
	time.Sleep(time.Second)
	other := http2Frame{kind: kindData, stream: 1, payload: "some"}.String()
	answer := other + http2Frame{kind: kindPing, flags: ack, payload: data}.String() + other
	io.WriteString(far, answer[:20])
	io.WriteString(far, answer[20:])
}

func TestGoAwayDoesNotWaitForABlockedWrite(t *testing.T) {
	c := newHTTP2Conns()
	near, far := net.Pipe()
	conn := c.add(near)
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, http2Frame{kind: kindSettings}.String())
		written <- err
	}()
	far.Read(make([]byte, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.goAway(ctx)
	near.Close()
	if err := receive(t, written); err == nil {
		t.Error("the write has succeeded")
	}
}

// sink takes at most limit bytes in one Write, if there is a limit.
type sink struct {
	net.Conn
	limit   int
	written bytes.Buffer
}

func (r *sink) Write(p []byte) (int, error) {
	if r.limit > 0 && len(p) > r.limit {
		n, _ := r.written.Write(p[:r.limit])
		return n, os.ErrDeadlineExceeded
	}
	return r.written.Write(p)
}

// someFrames returns what a server could write, and where other frames may come between.
func someFrames() (frames string, gaps []int) {
	for _, f := range []struct {
		http2Frame
		gap bool
	}{
		{http2Frame{kind: kindSettings, payload: "123456"}, true},
		{http2Frame{kind: kindSettings, flags: ack}, true},
		{http2Frame{kind: frameHeaders, stream: 1, payload: "begin"}, false},
		{http2Frame{kind: frameContinuation, stream: 1, payload: "more"}, false},
		{http2Frame{kind: frameContinuation, flags: flagEndHeaders, stream: 1, payload: "end"}, true},
		{http2Frame{kind: kindData, stream: 1, payload: strings.Repeat("a", 20)}, true},
		{http2Frame{kind: framePushPromise, stream: 1, payload: "push"}, false},
		{http2Frame{kind: frameContinuation, flags: flagEndHeaders, stream: 1}, true},
		{http2Frame{kind: frameHeaders, flags: flagEndHeaders | endStream, stream: 1, payload: "trailer"}, true},
		{http2Frame{kind: kindUpdate, payload: "1234"}, true},
	} {
		frames += f.String()
		if f.gap {
			gaps = append(gaps, len(frames))
		}
	}
	return frames, gaps
}

// TestRequestComesInTheNextGap asks at each byte of a conversation that is written in pieces of any size.
func TestRequestComesInTheNextGap(t *testing.T) {
	frames, gaps := someFrames()
	for size := 1; size <= len(frames); size++ {
		for asked := 0; asked <= len(frames); asked += size {
			to := &sink{}
			conn := newHTTP2Conns().add(to)
			for at := 0; at < len(frames); at += size {
				if at == asked {
					conn.sendGoAway()
				}
				n, err := io.WriteString(conn, frames[at:min(at+size, len(frames))])
				if err != nil || n != min(size, len(frames)-at) {
					t.Fatalf("%d bytes are written, %v", n, err)
				}
			}
			if asked == len(frames) {
				conn.sendGoAway()
			}
			next := gaps[slices.IndexFunc(gaps, func(gap int) bool { return gap >= asked })]
			if got := to.written.String(); got != frames[:next]+goAwayFrame+pingFrame+frames[next:] {
				t.Fatalf("asked at %d, in pieces of %d, %q is written", asked, size, got)
			}
		}
	}
}

func TestWriteGoesOnWhereTheTimeWasOver(t *testing.T) {
	frames, gaps := someFrames()
	for limit := 1; limit <= len(frames); limit++ {
		to := &sink{limit: limit}
		conn := newHTTP2Conns().add(to)
		conn.sendGoAway()
		for rest := frames; rest != ""; {
			n, err := io.WriteString(conn, rest)
			if rest = rest[n:]; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || err == nil && rest != "" {
				t.Fatalf("%d bytes are left, %v", len(rest), err)
			}
		}
		if got := to.written.String(); got != frames[:gaps[0]]+goAwayFrame+pingFrame+frames[gaps[0]:] {
			t.Fatalf("with %d bytes at a time %q is written", limit, got)
		}
	}
}

func TestNothingIsAskedAfterTheLastGoAway(t *testing.T) {
	to := &sink{}
	conns := newHTTP2Conns()
	conn := conns.add(to)
	last := http2Frame{kind: frameGoAway, payload: "\x00\x00\x00\x05\x00\x00\x00\x00"}.String()
	io.WriteString(conn, last)
	conn.sendGoAway()
	if got := to.written.String(); got != last || conns.waiting() {
		t.Errorf("%q is written, and an answer awaited: %v", got, conns.waiting())
	}
}

func TestNewConnectionIsGivenTimeForItsRequest(t *testing.T) {
	settings := http2Frame{kind: kindSettings}.String()
	for name, late := range map[string]bool{"early": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, to := newHTTP2Conns(), &sink{}
				if late {
					c.sendGoAways()
				}
				conn := c.add(to)
				if !late {
					c.sendGoAways()
				}
				mustHaveWritten := func(want string) {
					t.Helper()
					synctest.Wait()
					conn.mu.Lock()
					defer conn.mu.Unlock()
					if got := to.written.String(); got != want {
						t.Errorf("%q is written, not %q", got, want)
					}
				}
				io.WriteString(conn, settings)
				time.Sleep(firstRequestDelay - time.Nanosecond)
				mustHaveWritten(settings)
				time.Sleep(time.Nanosecond)
				mustHaveWritten(settings + goAwayFrame + pingFrame)
			})
		})
	}
}

func TestHandlersAndHooksSeeWhatTheyWouldSee(t *testing.T) {
	eachHTTP2(t, func(t *testing.T, encrypted bool) {
		type change struct {
			conn  net.Conn
			state http.ConnState
		}
		changes := make(chan change, 10)
		s := startHTTP2(t, encrypted, &http.Server{
			ConnState: func(conn net.Conn, state http.ConnState) { changes <- change{conn, state} },
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if secure := r.TLS != nil && r.TLS.HandshakeComplete && r.TLS.NegotiatedProtocol == "h2"; secure != encrypted {
					t.Errorf("the request has the TLS state %+v", r.TLS)
				}
				fmt.Fprint(w, r.RemoteAddr)
			}),
		})
		c := dialHTTP2(t, s, encrypted)
		c.get(1)
		if addr := c.await(kindData).payload; addr != c.conn.LocalAddr().String() {
			t.Errorf("the remote address is %s", addr)
		}
		first := receive(t, changes)
		c.conn.Close()
		states := []http.ConnState{first.state}
		for next := first; next.state != http.StateClosed; {
			next = receive(t, changes)
			states = append(states, next.state)
			if next.conn != first.conn {
				t.Errorf("%v is another connection: %T", next.state, next.conn)
			}
		}
		if want := []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateActive, http.StateIdle, http.StateClosed}; !slices.Equal(states, want) {
			t.Errorf("the states are %v, not %v", states, want)
		}
	})
}

func TestConnectionOfAnotherProtocolIsClosed(t *testing.T) {
	s := startHTTP2(t, true, &http.Server{})
	conn, err := tls.Dial("tcp", s.addr, clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("%q is read, %v", b, err)
	}
}

func TestWeakCipherIsRefused(t *testing.T) {
	s := startHTTP2(t, true, &http.Server{})
	config := clientTLS()
	config.MaxVersion, config.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
	conn, err := tls.Dial("tcp", s.addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &rawClient{t, conn, bufio.NewReader(conn)}
	c.write(preface)
	const inadequateSecurity = 12
	if f := c.await(frameGoAway); f.payload[7] != inadequateSecurity {
		t.Errorf("the reason is %q", f.payload)
	}
}

func TestServersWithoutHTTP2AreLeftAlone(t *testing.T) {
	type nextProto = map[string]func(*http.Server, *tls.Conn, http.Handler)
	serve := func(*http.Server, *tls.Conn, http.Handler) {}
	only1, only2 := new(http.Protocols), new(http.Protocols)
	only1.SetHTTP1(true)
	only2.SetHTTP2(true)
	for name, tt := range map[string]struct {
		srv   *http.Server
		debug string
		want  int
	}{
		"of its own":       {srv: &http.Server{Protocols: only2, TLSNextProto: nextProto{"h2": serve}}, want: 1},
		"refused":          {srv: &http.Server{TLSNextProto: nextProto{}}},
		"another protocol": {srv: &http.Server{TLSNextProto: nextProto{"other": serve}}, want: 1},
		"not among those":  {srv: &http.Server{Protocols: only1}},
		"GODEBUG":          {srv: &http.Server{}, debug: "http2server=0"},
		"without ciphers":  {srv: &http.Server{TLSConfig: &tls.Config{CipherSuites: []uint16{1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GODEBUG", tt.debug)
			conns := newHTTP2Conns()
			conns.attach(tt.srv)
			if got := len(tt.srv.TLSNextProto); got != tt.want {
				t.Errorf("it serves %d protocols besides", got)
			}
			conns.goAway(t.Context())
		})
	}
}

func TestOtherProtocolsGoOnBesideHTTP2(t *testing.T) {
	called := make(chan struct{})
	srv := &http.Server{Protocols: new(http.Protocols), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
		"other": func(*http.Server, *tls.Conn, http.Handler) { close(called) },
	}}
	srv.Protocols.SetHTTP2(true)
	newHTTP2Conns().attach(srv)
	srv.TLSNextProto["other"](nil, nil, nil)
	receive(t, called)
	if len(srv.TLSNextProto) != 3 {
		t.Errorf("%d protocols", len(srv.TLSNextProto))
	}
}

// silent takes and gives without end.
type silent struct {
	net.Conn
	frames string
}

func (s silent) Write(p []byte) (int, error) { return len(p), nil }
func (s silent) Read(p []byte) (int, error)  { return copy(p, s.frames), nil }

func TestFollowingFramesDoesNotAllocate(t *testing.T) {
	frames, _ := someFrames()
	conn, buffer := newHTTP2Conns().add(silent{frames: frames}), []byte(frames)
	if n := testing.AllocsPerRun(100, func() { conn.Write(buffer); conn.Read(buffer) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

// BenchmarkHTTP2Conn is about one response: its HEADERS and DATA.
func BenchmarkHTTP2Conn(b *testing.B) {
	frames := []byte(http2Frame{frameHeaders, flagEndHeaders, 1, strings.Repeat("h", 40)}.String() +
		http2Frame{kindData, endStream, 1, strings.Repeat("d", 1000)}.String())
	for name, conn := range map[string]net.Conn{
		"alone":    silent{frames: string(frames)},
		"followed": newHTTP2Conns().add(silent{frames: string(frames)}),
	} {
		b.Run("write/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				conn.Write(frames)
			}
		})
		b.Run("read/"+name, func(b *testing.B) {
			b.ReportAllocs()
			buffer := make([]byte, len(frames))
			for b.Loop() {
				conn.Read(buffer[:headerSize])
			}
		})
	}
}
