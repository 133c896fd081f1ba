package drain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// server is one http.Server that the drain ends.
type server struct {
	name  string
	srv   *http.Server
	ln    *Listener
	conns *connections
	http2 *http2Conns
	ended chan struct{} // closed when nothing is accepted any more
	cut   int           // number of requests that were cut, streams included
}

func newServer(srv *http.Server, ln net.Listener) *server {
	return &server{"server " + ln.Addr().String(), srv, NewListener(ln), newConnections(), newHTTP2Conns(), make(chan struct{}), 0}
}

func (s *server) attach(d *Drain, ln net.Listener) {
	s.srv.Handler = d.Handler(s.srv.Handler)
	s.srv.ConnContext = s.connContext(d.ending, s.srv.ConnContext)
	s.srv.ConnState = s.connState(s.srv.ConnState)
	s.srv.BaseContext = d.baseContext(ln, s.srv.BaseContext)
	setTimeouts(s.srv)
	s.http2.attach(s.srv)
}

const (
	// readHeaderTimeout also bounds how long a new connection may be silent, and some load balancers open connections in
	// advance.
	readHeaderTimeout = time.Minute
	// idleTimeout is longer than load balancers keep idle connections, so that they close first: a server that closes
	// an idle connection may do so just as a request arrives. The longest known default is 10 minutes
	// (https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries).
	idleTimeout = 11 * time.Minute
	// writeByteTimeout is for HTTP/2 clients that have stopped reading: the deadline of a stream does not end a write
	// to the connection that is blocked.
	writeByteTimeout = 10 * time.Second
)

// setTimeouts keeps silent clients from holding connections for ever. It leaves timeouts that are set alone.
func setTimeouts(srv *http.Server) {
	if srv.HTTP2 == nil {
		srv.HTTP2 = new(http.HTTP2Config)
	}
	if srv.HTTP2.WriteByteTimeout == 0 {
		srv.HTTP2.WriteByteTimeout = writeByteTimeout
	}
	if srv.ReadTimeout != 0 {
		return
	}
	if srv.ReadHeaderTimeout == 0 {
		srv.ReadHeaderTimeout = readHeaderTimeout
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = idleTimeout
	}
}

func (s *server) connContext(ending <-chan struct{}, next func(context.Context, net.Conn) context.Context) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, conn net.Conn) context.Context {
		ctx = context.WithValue(ctx, connectionKey{}, s.conns.add(conn, ending))
		if next != nil {
			ctx = next(ctx, conn)
		}
		return ctx
	}
}

func (s *server) connState(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(conn net.Conn, state http.ConnState) {
		s.conns.setState(conn, state)
		if next != nil {
			next(conn, state)
		}
	}
}

func (d *Drain) baseContext(ln net.Listener, next func(net.Listener) context.Context) func(net.Listener) context.Context {
	return func(net.Listener) context.Context {
		ctx := context.Background()
		if next != nil {
			ctx = next(ln)
		}
		return d.WithDraining(ctx)
	}
}

// acceptError is nil if the server was stopped on purpose, by the drain or by the program.
func (s *server) acceptError(err error) error {
	if errors.Is(err, errStopped) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s failed: %w", s.name, err)
}

// stopAccepting does not fail if the server goes on accepting: finish closes the listener then.
func (s *server) stopAccepting(ctx context.Context) error {
	s.ln.stop()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	return nil
}

// finish waits until the clients have left, and cuts the requests that are unanswered when ctx is done.
func (s *server) finish(ctx context.Context, linger time.Duration) error {
	var asking sync.WaitGroup
	asking.Go(func() { s.http2.goAway(ctx) })
	s.conns.waitUntilIdle(ctx, linger)
	asking.Wait()
	if ctx.Err() == nil {
		return nil
	}
	s.cut = s.conns.cut()
	if s.cut == 0 {
		return nil
	}
	return fmt.Errorf("cut unfinished requests (%d): %w", s.cut, context.Cause(ctx))
}

func (s *server) streaming() bool { return s.conns.count((*connection).streaming) > 0 }

// closeFrameInterval is the longest time between two clients that are told to leave. A server easily accepts a hundred
// new clients a second.
const closeFrameInterval = 10 * time.Millisecond

func (d *Drain) endHijacked(ctx context.Context) error {
	err := d.hijacks.goAway(ctx, min(d.o.spread, time.Duration(d.hijacks.count())*closeFrameInterval))
	if n := d.hijacks.unansweredCount(); n > 0 {
		d.log.Info(fmt.Sprintf("%d WebSocket clients did not answer the close frame within %v", n, closeFrameTimeout))
	}
	return err
}

// ends returns the steps of Streams that every drain has.
func (d *Drain) ends() []step {
	ends := []step{{"hijacked connections", d.endHijacked}}
	for _, s := range d.served() {
		ends = append(ends, step{s.name, s.end})
	}
	return ends
}

// end waits for the streams, and closes the connections that are left.
func (s *server) end(ctx context.Context) error {
	defer func() { <-s.ended }()
	s.conns.waitUntilNone(ctx, (*connection).streaming)
	s.conns.closeIdle(ctx)
	s.shutdown(ctx)
	streams := s.conns.sum((*connection).streamCount)
	s.srv.Close()
	if streams == 0 {
		return nil
	}
	s.cut += streams
	return fmt.Errorf("cut streams (%d): %w", streams, context.Cause(ctx))
}

// shutdown, unlike Shutdown, does not wait for the handlers of requests that were cut.
func (s *server) shutdown(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var shutting sync.WaitGroup
	shutting.Go(func() { _ = s.srv.Shutdown(ctx) })
	s.conns.waitUntilNone(ctx, (*connection).open)
	cancel()
	shutting.Wait()
}
