package drain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Serve serves HTTP on ln until it is told to stop, lets the clients go without losing a request, and returns.
//
// When it accepts connections it calls handoff.Ready. SIGTERM, SIGINT or the end of the context (see Signals and
// Context) begin the drain: connections that wait in the queue are accepted still, then ln is closed; requests that
// come in are answered with Connection: close; this goes on until no connection is left, or until all that are left
// have been idle for the linger. Shutdown comes last. A second signal, SIGQUIT or the end of the timeout cut what
// remains.
//
// The result is nil if no request was cut. An error of Accept or handoff.Ready ends Serve too, after a drain.
//
// Serve owns srv and ln from the call on. It puts itself in front of srv's Handler, ConnState and BaseContext, which
// still do their work, so a server can be served once. It closes ln. A ln without SetDeadline, such as tls.NewListener
// gives, is closed as it stands: what waits in its queue is lost unless another process has the socket too.
// Hijacked connections are not waited for.
func Serve(srv *http.Server, ln net.Listener, opts ...Option) error {
	o := newOptions(opts)
	stop := watch(o)
	defer stop.close()
	d := &drain{srv: srv, conns: newConnections(), draining: make(chan struct{})}
	d.attach(ln)
	l := newListener(ln)

	var serveErr error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serveErr = srv.Serve(l)
	}()
	select {
	case <-stop.begin.Done():
	case <-ended:
	}

	ctx, cancel := context.WithTimeoutCause(stop.now, o.timeout, fmt.Errorf("the timeout of %v is over", o.timeout))
	defer cancel()
	close(d.draining)
	l.stop()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	err := d.finish(ctx, o.linger)
	<-ended
	return errors.Join(acceptError(serveErr), err)
}

// acceptError leaves out the ends that were asked for, here or by the owner of the server.
func acceptError(err error) error {
	if errors.Is(err, errStopped) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot go on serving: %w", err)
}

// drain is one server on its way to the end.
type drain struct {
	srv      *http.Server
	conns    *connections
	draining chan struct{} // closed when the drain begins
}

type drainingKey struct{}

// Draining gives a channel that is closed when the drain of the server behind a request begins. Handlers that would
// not end by themselves, such as event streams, select on it and return. The request's context is not cancelled by
// the drain. For a context that is not of a request under Serve the channel is nil, which never gets ready.
func Draining(ctx context.Context) <-chan struct{} {
	draining, _ := ctx.Value(drainingKey{}).(<-chan struct{})
	return draining
}

func (d *drain) attach(ln net.Listener) {
	d.srv.Handler = d.handler(d.srv.Handler)
	d.srv.ConnState = d.connState(d.srv.ConnState)
	d.srv.BaseContext = d.baseContext(ln, d.srv.BaseContext)
}

// handler asks clients to leave by a header. SetKeepAlivesEnabled(false) would write the same header, but closes idle
// connections at once, and those that become idle before their client has read the header.
func (d *drain) handler(next http.Handler) http.Handler {
	if next == nil {
		next = http.DefaultServeMux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-d.draining:
			w.Header().Set("Connection", "close")
		default:
		}
		next.ServeHTTP(w, r)
	})
}

func (d *drain) connState(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(conn net.Conn, state http.ConnState) {
		d.conns.note(conn, state)
		if next != nil {
			next(conn, state)
		}
	}
}

func (d *drain) baseContext(ln net.Listener, next func(net.Listener) context.Context) func(net.Listener) context.Context {
	return func(net.Listener) context.Context {
		ctx := context.Background()
		if next != nil {
			ctx = next(ln)
		}
		var draining <-chan struct{} = d.draining
		return context.WithValue(ctx, drainingKey{}, draining)
	}
}

// finish waits for the clients to leave, and ends the rest.
func (d *drain) finish(ctx context.Context, linger time.Duration) error {
	d.conns.settle(ctx, linger)
	// Shutdown waits up to five seconds for a connection that has not sent anything yet.
	d.conns.closeNew()
	if d.srv.Shutdown(ctx) == nil {
		return nil
	}
	cut := d.conns.inFlight()
	d.srv.Close()
	if cut == 0 {
		return nil
	}
	return fmt.Errorf("cannot finish the requests on %d connections: %w", cut, context.Cause(ctx))
}
