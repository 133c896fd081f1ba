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

// http2Conns are the HTTP/2 connections of a server. net/http ends one with a single GOAWAY, and discards the streams
// that the client has opened before it has read that. Here the client gets two (RFC 9113, section 6.8): the first one
// asks it to open no more streams, and is followed by a PING. When the answer to the PING is there, so are all
// streams, and the second GOAWAY, which is net/http's, names the last of them.
type http2Conns struct {
	// own is a server without a listener. The HTTP/2 connections are its: Shutdown of it sends them the second
	// GOAWAY, and leaves those of HTTP/1 alone.
	own *http.Server

	mu      sync.Mutex
	leaving bool
	unaware map[*http2Conn]struct{} // those whose clients are not known to have read a GOAWAY
	changed wakeup                  // when unaware has shrunk
}

func newHTTP2Conns() *http2Conns {
	return &http2Conns{own: &http.Server{}, unaware: map[*http2Conn]struct{}{}, changed: newWakeup()}
}

const (
	protoTLS = "h2"
	// protoPlain is where net/http keeps its server for HTTP/2 without TLS, also for golang.org/x/net/http2. The
	// function finds the connection by UnencryptedNetConn, and its preface has been read.
	protoPlain = "unencrypted_http2"

	preface         = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	prefacePatience = 10 * time.Second // net/http's own

	// answerPatience is what a client that does not answer can cost the drain. grpc-go allows the same.
	answerPatience = 5 * time.Second
	// firstPatience is for the request that a client has opened its connection for. A GOAWAY before it costs another
	// connection, and net/http's client fails a request then whose body it cannot rewind, although it has sent nothing.
	firstPatience = 250 * time.Millisecond
	// straggling is for streams that come after the answer. A client with a goroutine for each request, such as
	// net/http's, may have numbered one before it has read the GOAWAY, and write it after it has answered.
	straggling = 250 * time.Millisecond
)

// attach puts itself between srv and the HTTP/2 that net/http would give it. Call it once, when srv is complete and
// before it serves. It does nothing for a server that has HTTP/2 of its owner, or none.
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
		next(srv, carry(http2TLSConn{ours, conn}), h)
	}
	srv.TLSNextProto[protoPlain] = func(srv *http.Server, conn *tls.Conn, h http.Handler) {
		ours := c.add(conn.NetConn().(carrier).UnencryptedNetConn())
		defer c.remove(ours)
		next(srv, carry(ours), h)
	}
	srv.ConnState = underlying(srv.ConnState)
	srv.RegisterOnShutdown(c.finish)
}

// configured is a server to which net/http has given the HTTP/2 that it would give to srv, if any. It does that at the
// beginning of ServeTLS, which ends for want of a certificate.
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
	if err := conn.SetReadDeadline(time.Now().Add(prefacePatience)); err != nil {
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

type carrier interface{ UnencryptedNetConn() net.Conn }

type carried struct {
	net.Conn
	conn net.Conn
}

func (c carried) UnencryptedNetConn() net.Conn { return c.conn }

func carry(conn net.Conn) *tls.Conn { return tls.Client(carried{conn: conn}, nil) }

// underlying lets next see the connections that it has seen with StateNew and will see with StateClosed.
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

// goAway asks all clients to leave, those on connections that come later too. It returns when each has opened its last
// stream, or has not answered in time, or when ctx is done. From then on new streams are discarded, and a connection
// ends with its last stream.
func (c *http2Conns) goAway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	c.leave()
	for c.waiting() && ctx.Err() == nil {
		select {
		case <-c.changed:
		case <-ctx.Done():
		}
	}
	c.finish()
}

// finish has net/http send its GOAWAY to all, and is done at once: there is nothing else that own would wait for.
func (c *http2Conns) finish() { _ = c.own.Shutdown(context.Background()) }

func (c *http2Conns) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	for conn := range c.unaware {
		conn.askInTime()
	}
}

func (c *http2Conns) waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unaware) > 0
}

func (c *http2Conns) add(conn net.Conn) *http2Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	ours := &http2Conn{Conn: conn, conns: c, begun: time.Now()}
	if c.leaving {
		ours.askInTime()
	}
	c.unaware[ours] = struct{}{}
	return ours
}

func (c *http2Conns) remove(conn *http2Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unaware, conn)
	c.changed.wake()
}

const (
	// goAwayFrame has the highest stream that there can be, so it refuses none.
	goAwayFrame = "\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x7f\xff\xff\xff" + "\x00\x00\x00\x00"
	pingFrame   = "\x00\x00\x08\x06\x00\x00\x00\x00\x00" + "draining"
	// answerFrame reaches net/http, which ignores answers to a PING that it has not sent.
	answerFrame = "\x00\x00\x08\x06\x01\x00\x00\x00\x00" + "draining"
)

// http2Conn puts goAwayFrame and pingFrame between what net/http writes, and looks for the answer in what it reads.
type http2Conn struct {
	net.Conn
	conns *http2Conns
	begun time.Time

	in       frame
	answered bool

	mu      sync.Mutex
	out     frame
	request []byte // what is to be written still
	over    bool   // net/http has sent its GOAWAY. No later one may have a higher stream.
}

func (c *http2Conn) underlying() net.Conn { return c.Conn }

// http2TLSConn shows net/http the state that it checks and gives to the requests.
type http2TLSConn struct {
	*http2Conn
	tls *tls.Conn
}

func (c http2TLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// Read is called by one goroutine, and for the next frame only when net/http has dealt with the one before.
func (c *http2Conn) Read(p []byte) (int, error) {
	if c.answered {
		c.answered = false
		time.AfterFunc(straggling, func() { c.conns.remove(c) })
	}
	n, err := c.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		rest = rest[c.in.pass(rest):]
		c.answered = c.answered || c.in.complete() && string(c.in.start[:]) == answerFrame
	}
	return n, err
}

// Write may be given any part of any number of frames. It may write less than that, and be called again for the rest.
func (c *http2Conn) Write(p []byte) (written int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.writeRequest(); err != nil || written == len(p) {
			return written, err
		}
		n, err := c.Conn.Write(p[written : written+c.undisturbed(p[written:])])
		c.follow(p[written : written+n])
		written += n
		if err != nil {
			return written, err
		}
	}
}

// askInTime leaves it to another goroutine to ask, at once or when the first stream is there. A client that does not
// read may block that until the end of its connection.
func (c *http2Conn) askInTime() { time.AfterFunc(time.Until(c.begun.Add(firstPatience)), c.ask) }

// ask has the client leave. If something is being written, that goes first.
func (c *http2Conn) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.request = []byte(goAwayFrame + pingFrame)
	_ = c.writeRequest() // an error is net/http's to see, when it reads or writes next
}

func (c *http2Conn) writeRequest() error {
	if len(c.request) == 0 || !c.out.endsBlock() {
		return nil
	}
	n, err := c.Conn.Write(c.request)
	c.request = c.request[n:]
	return err
}

// undisturbed is how much of p goes before the request, or all of it.
func (c *http2Conn) undisturbed(p []byte) int {
	if len(c.request) == 0 {
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
			c.over, c.request = true, nil
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

// frame is the one that passes, or the one that has passed last.
type frame struct {
	start  [headerSize + 8]byte // the header and the beginning of the payload
	passed int
}

func (f *frame) kind() byte { return f.start[3] }

func (f *frame) size() int {
	return headerSize + int(f.start[0])<<16 + int(f.start[1])<<8 + int(f.start[2])
}

func (f *frame) complete() bool { return f.passed >= headerSize && f.passed == f.size() }

// endsBlock tells whether any other frame may come next: the frames of one header block stay together.
func (f *frame) endsBlock() bool {
	switch f.kind() {
	case frameHeaders, framePushPromise, frameContinuation:
		return f.complete() && f.start[4]&flagEndHeaders != 0
	}
	return f.complete()
}

// pass takes from p what belongs to the frame, or to the next one if this one is complete, and returns how much it was.
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
