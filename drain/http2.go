package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// http2Conns are the HTTP/2 connections of a server. net/http ends a connection with a single GOAWAY, and discards the
// streams that the client has opened before it has read the GOAWAY. http2Conns sends two (RFC 9113, section 6.8): the first
// asks the client to open no more streams, and is followed by a PING. Once the client has answered the PING, all its
// streams have arrived, and the second GOAWAY, which net/http writes, names the last of them.
type http2Conns struct {
	// own is a server without a listener that has the HTTP/2 connections: its Shutdown sends them the second
	// GOAWAY, and leaves the HTTP/1 connections alone.
	own *http.Server

	mu             sync.Mutex
	leaving        bool
	unacknowledged map[*http2Conn]struct{} // connections whose clients are not known to have read a GOAWAY
	changed        wakeup                  // when unaware has shrunk
}

func newHTTP2Conns() *http2Conns {
	return &http2Conns{own: &http.Server{}, unacknowledged: map[*http2Conn]struct{}{}, changed: newWakeup()}
}

const (
	protoTLS = "h2"
	// protoPlain is the key under which net/http, and golang.org/x/net/http2, keep the function that serves HTTP/2 without
	// TLS. The function gets the connection by UnencryptedNetConn; its preface has been read by then.
	protoPlain = "unencrypted_http2"

	preface        = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	prefaceTimeout = 10 * time.Second // net/http's own

	// pingTimeout bounds how long a client that does not answer the PING can delay the drain. grpc-go uses the same.
	pingTimeout = 5 * time.Second
	// firstRequestDelay lets a new connection's first request arrive before the GOAWAY. Otherwise the client needs another
	// connection, and net/http's client fails a request whose body it cannot rewind, although it has sent nothing.
	firstRequestDelay = 250 * time.Millisecond
	// lateStreamDelay is for streams that arrive after the answer to the PING. A client with a goroutine for each request,
	// such as net/http's, may number a stream before it reads the GOAWAY, and send it after it has answered.
	lateStreamDelay = 250 * time.Millisecond
)

// attach puts c between srv and net/http's HTTP/2. It is called once, when srv is complete and
// before it serves. It has no effect if the program has set up HTTP/2 itself, or if srv has none.
func (c *http2Conns) attach(srv *http.Server) {
	if srv.TLSNextProto[protoTLS] != nil {
		return
	}
	c.own = configured(srv)
	next := c.own.TLSNextProto[protoPlain]
	if next == nil {
		return
	}
	if srv.TLSNextProto == nil {
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	srv.TLSNextProto[protoTLS] = func(srv *http.Server, conn *tls.Conn, h http.Handler) {
		if readPreface(conn) != nil {
			return // net/http closes the connection then
		}
		ours := c.add(conn)
		defer c.remove(ours)
		next(srv, asTLSConn(http2TLSConn{ours, conn}), h)
	}
	srv.TLSNextProto[protoPlain] = func(srv *http.Server, conn *tls.Conn, h http.Handler) {
		ours := c.add(conn.NetConn().(plainConner).UnencryptedNetConn())
		defer c.remove(ours)
		next(srv, asTLSConn(ours), h)
	}
	srv.ConnState = underlying(srv.ConnState)
	srv.RegisterOnShutdown(c.finish)
}

// configured returns a server that net/http has set up for HTTP/2 as it would set up srv. net/http does that at the
// beginning of ServeTLS, which then fails because there is no certificate.
func configured(srv *http.Server) *http.Server {
	own := &http.Server{
		Protocols:   srv.Protocols,
		IdleTimeout: srv.IdleTimeout,
		ReadTimeout: srv.ReadTimeout,
		TLSConfig:   &tls.Config{},
	}
	if srv.TLSConfig != nil {
		own.TLSConfig.CipherSuites, own.TLSConfig.MinVersion = srv.TLSConfig.CipherSuites, srv.TLSConfig.MinVersion
	}
	if srv.TLSNextProto != nil {
		own.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	_ = own.ServeTLS(nil, "", "")
	return own
}

func readPreface(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return err
	}
	var got [len(preface)]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return err
	}
	if string(got[:]) != preface {
		return errors.New("the client does not speak HTTP/2")
	}
	return conn.SetReadDeadline(time.Time{})
}

type plainConner interface{ UnencryptedNetConn() net.Conn }

type plainConn struct {
	net.Conn
	conn net.Conn
}

func (c plainConn) UnencryptedNetConn() net.Conn { return c.conn }

func asTLSConn(conn net.Conn) *tls.Conn { return tls.Client(plainConn{conn: conn}, nil) }

// underlying passes to next the same connection that next sees with StateNew and StateClosed.
func underlying(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	if next == nil {
		return nil
	}
	return func(conn net.Conn, state http.ConnState) {
		if ours, ok := conn.(interface{ underlying() net.Conn }); ok {
			conn = ours.underlying()
		}
		next(conn, state)
	}
}

// goAway asks all clients to leave, including those that connect later. It returns when each client has opened its last
// stream or has not answered in time, or when ctx is done. From then on new streams are discarded, and a connection
// ends with its last stream.
func (c *http2Conns) goAway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	c.sendGoAways()
	for c.waiting() && ctx.Err() == nil {
		select {
		case <-c.changed:
		case <-ctx.Done():
		}
	}
	c.finish()
}

// finish makes net/http send its GOAWAY to all connections. It returns at once, because Shutdown of own has nothing
// else to wait for.
func (c *http2Conns) finish() { _ = c.own.Shutdown(context.Background()) }

func (c *http2Conns) sendGoAways() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	for conn := range c.unacknowledged {
		conn.scheduleGoAway()
	}
}

func (c *http2Conns) waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unacknowledged) > 0
}

func (c *http2Conns) add(conn net.Conn) *http2Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	ours := &http2Conn{Conn: conn, conns: c, begun: time.Now()}
	if c.leaving {
		ours.scheduleGoAway()
	}
	c.unacknowledged[ours] = struct{}{}
	return ours
}

func (c *http2Conns) remove(conn *http2Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unacknowledged, conn)
	c.changed.wake()
}

const (
	// goAwayFrame names the highest possible stream, so it refuses none.
	goAwayFrame = "\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x7f\xff\xff\xff" + "\x00\x00\x00\x00"
	pingFrame   = "\x00\x00\x08\x06\x00\x00\x00\x00\x00" + "draining"
	// answerFrame also reaches net/http, which ignores answers to a PING that it has not sent.
	answerFrame = "\x00\x00\x08\x06\x01\x00\x00\x00\x00" + "draining"
)

// http2Conn inserts goAwayFrame and pingFrame into the frames that net/http writes, and looks for the answer in the frames
// that net/http reads.
type http2Conn struct {
	net.Conn
	conns *http2Conns
	begun time.Time

	in       frame
	answered bool

	mu          sync.Mutex
	out         frame
	pending     []byte // bytes of the two frames that are not written yet
	finalGoAway bool   // net/http has sent its GOAWAY: no later one may name a higher stream
}

func (c *http2Conn) underlying() net.Conn { return c.Conn }

// http2TLSConn has the TLS state, which net/http checks and passes to the requests.
type http2TLSConn struct {
	*http2Conn
	tls *tls.Conn
}

func (c http2TLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// Read is called by one goroutine, and for the next frame only after net/http has handled the one before.
func (c *http2Conn) Read(p []byte) (int, error) {
	if c.answered {
		c.answered = false
		time.AfterFunc(lateStreamDelay, func() { c.conns.remove(c) })
	}
	n, err := c.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		rest = rest[c.in.pass(rest):]
		c.answered = c.answered || c.in.complete() && string(c.in.start[:]) == answerFrame
	}
	return n, err
}

// Write handles frames that are split anywhere.
func (c *http2Conn) Write(p []byte) (written int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.writePending(); err != nil || written == len(p) {
			return written, err
		}
		n, err := c.Conn.Write(p[written : written+c.untilFrameEnd(p[written:])])
		c.follow(p[written : written+n])
		written += n
		if err != nil {
			return written, err
		}
	}
}

// scheduleGoAway calls sendGoAway in another goroutine, once the connection is firstRequestDelay old. A client that does not
// read may block that goroutine until its connection ends.
func (c *http2Conn) scheduleGoAway() {
	time.AfterFunc(time.Until(c.begun.Add(firstRequestDelay)), c.sendGoAway)
}

// sendGoAway asks the client to leave, after the frame that is being written.
func (c *http2Conn) sendGoAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finalGoAway {
		return
	}
	c.pending = []byte(goAwayFrame + pingFrame)
	_ = c.writePending() // net/http sees the error at its next read or write
}

func (c *http2Conn) writePending() error {
	if len(c.pending) == 0 || !c.out.endsBlock() {
		return nil
	}
	n, err := c.Conn.Write(c.pending)
	c.pending = c.pending[n:]
	return err
}

// untilFrameEnd is how many bytes of p have to be written before the pending frames, or all of them.
func (c *http2Conn) untilFrameEnd(p []byte) int {
	if len(c.pending) == 0 {
		return len(p)
	}
	n := 0
	for out := c.out; n < len(p) && !out.endsBlock(); {
		n += out.pass(p[n:])
	}
	return n
}

func (c *http2Conn) follow(p []byte) {
	for len(p) > 0 {
		p = p[c.out.pass(p):]
		if c.out.complete() && c.out.kind() == frameGoAway {
			c.finalGoAway, c.pending = true, nil
			c.conns.remove(c)
		}
	}
}

const (
	frameHeaders      = 1
	framePushPromise  = 5
	frameGoAway       = 7
	frameContinuation = 9
	flagEndHeaders    = 4
)

const headerSize = 9

// frame is the current frame, or the last one if it is complete.
type frame struct {
	start  [headerSize + 8]byte // the header and the beginning of the payload
	passed int
}

func (f *frame) kind() byte { return f.start[3] }

func (f *frame) size() int {
	return headerSize + int(f.start[0])<<16 + int(f.start[1])<<8 + int(f.start[2])
}

func (f *frame) complete() bool { return f.passed >= headerSize && f.passed == f.size() }

// endsBlock reports whether any other frame may come next: the frames of one header block must stay together.
func (f *frame) endsBlock() bool {
	switch f.kind() {
	case frameHeaders, framePushPromise, frameContinuation:
		return f.complete() && f.start[4]&flagEndHeaders != 0
	}
	return f.complete()
}

// pass takes the bytes of p that belong to the frame, or to the next one if this one is complete, and returns how many
// these were.
func (f *frame) pass(p []byte) int {
	if f.complete() {
		f.passed = 0
	}
	n := 0
	if f.passed < headerSize {
		n = copy(f.start[f.passed:headerSize], p)
		f.passed += n
	}
	if f.passed < headerSize {
		return n
	}
	payload := p[n:min(len(p), n+f.size()-f.passed)]
	if f.passed < len(f.start) {
		copy(f.start[f.passed:], payload)
	}
	f.passed += len(payload)
	return n + len(payload)
}
