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

// server is one server on its way to the end.
type server struct {
	name  string
	srv   *http.Server
	ln    *Listener
	conns *connections
	http2 *http2Conns
	ended chan struct{} // closed when nothing is accepted any more
	cut   int           // requests that were given up, streams included
}

func newServer(srv *http.Server, ln net.Listener) *server {
	return &server{"server " + ln.Addr().String(), srv, NewListener(ln), newConnections(), newHTTP2Conns(), make(chan struct{}), 0}
}

func (s *server) attach(d *Drain, ln net.Listener) {
	s.srv.Handler = d.Handler(s.srv.Handler)
	s.srv.ConnContext = s.connContext(d.ending, s.srv.ConnContext)
	s.srv.ConnState = s.connState(s.srv.ConnState)
	s.srv.BaseContext = d.baseContext(ln, s.srv.BaseContext)
	boundSilence(s.srv)
	s.http2.attach(s.srv)
}

const (
	// headerPatience also bounds the silence of a new connection, and some load balancers open theirs in advance.
	headerPatience = time.Minute
	// idlePatience is longer than load balancers keep idle connections: 10 minutes is the longest default of the known
	// ones (https://cloud.google.com/load-balancing/docs/https#timeouts_and_retries). Whoever closes an idle connection
	// first may do so under a request of the other.
	idlePatience = 11 * time.Minute
	// bytePatience is for clients of HTTP/2 that read nothing any more: no deadline of a stream ends a write to a
	// connection that does not move.
	bytePatience = 10 * time.Second
)

// boundSilence keeps silent clients from holding connections for ever, where the owner of the server has said nothing.
func boundSilence(srv *http.Server) {
	if srv.HTTP2 == nil {
		srv.HTTP2 = new(http.HTTP2Config)
	}
	if srv.HTTP2.WriteByteTimeout == 0 {
		srv.HTTP2.WriteByteTimeout = bytePatience
	}
	if srv.ReadTimeout != 0 {
		return
	}
	if srv.ReadHeaderTimeout == 0 {
		srv.ReadHeaderTimeout = headerPatience
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = idlePatience
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
		s.conns.note(conn, state)
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

// acceptError leaves out the ends that were asked for, here or by the owner of the server.
func (s *server) acceptError(err error) error {
	if errors.Is(err, errStopped) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s failed: %w", s.name, err)
}

// stopAccepting leaves it to finish to close a listener that does not heed.
func (s *server) stopAccepting(ctx context.Context) error {
	s.ln.stop()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	return nil
}

// finish waits for the clients to leave, and cuts the requests that take too long.
func (s *server) finish(ctx context.Context, linger time.Duration) error {
	var asking sync.WaitGroup
	asking.Go(func() { s.http2.goAway(ctx) })
	s.conns.settle(ctx, linger)
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

// farewellInterval is the longest time between two clients that are told to leave: a server takes a hundred new ones a
// second with ease.
const farewellInterval = 10 * time.Millisecond

func (d *Drain) endHijacked(ctx context.Context) error {
	err := d.hijacks.goAway(ctx, min(d.o.spread, time.Duration(d.hijacks.count())*farewellInterval))
	if n := d.hijacks.silent(); n > 0 {
		d.log.Info(fmt.Sprintf("%d WebSocket clients did not answer the close frame within %v", n, mutePatience))
	}
	return err
}

// ends are the steps of Streams that every drain has.
func (d *Drain) ends() []step {
	ends := []step{{"hijacked connections", d.endHijacked}}
	for _, s := range d.served() {
		ends = append(ends, step{s.name, s.end})
	}
	return ends
}

// end waits for the streams, and closes what is left.
func (s *server) end(ctx context.Context) error {
	defer func() { <-s.ended }()
	s.conns.await(ctx, (*connection).streaming)
	s.conns.closeIdle(ctx)
	s.shutdown(ctx)
	streams := s.conns.sum((*connection).endless)
	s.srv.Close()
	if streams == 0 {
		return nil
	}
	s.cut += streams
	return fmt.Errorf("cut streams (%d): %w", streams, context.Cause(ctx))
}

// shutdown does not wait for the handlers of requests that were cut, as Shutdown would.
func (s *server) shutdown(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var shutting sync.WaitGroup
	shutting.Go(func() { _ = s.srv.Shutdown(ctx) })
	s.conns.await(ctx, (*connection).staying)
	cancel()
	shutting.Wait()
}
