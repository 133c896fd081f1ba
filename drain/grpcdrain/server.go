package grpcdrain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/drain"
	"google.golang.org/grpc"
)

// Server is a grpc.Server that ends with a Drain. Register services with it, then call Start.
type Server struct {
	*grpc.Server

	// Notice is how long the server keeps accepting after its health service has reported NOT_SERVING, for load balancers
	// that have to see that first. It is part of the time of drain.Accepting. Leave it 0 if a
	// successor serves the same address. Set it before Start.
	Notice time.Duration

	drain    *drain.Drain
	inFlight atomic.Int64
	stopped  atomic.Bool   // the RPCs in flight were cut
	leaving  chan struct{} // closed when the clients have been told to leave
	health   shutdowner
	once     sync.Once // for the first Start
}

type shutdowner interface{ Shutdown() }

const (
	healthService = "grpc.health.v1.Health"
	watchMethod   = "/grpc.health.v1.Health/Watch"
)

const (
	// goAwayTimeout is the time that GracefulStop needs to send the first GOAWAY: it does not report when it has done so.
	goAwayTimeout = 100 * time.Millisecond
	// reportMargin makes a step end before its time is over: a Drain ignores an error that comes later.
	reportMargin = 500 * time.Millisecond
)

// NewServer returns a server that ends with d. Its interceptors run before those of opts that are chained.
func NewServer(d *drain.Drain, opts ...grpc.ServerOption) *Server {
	s := &Server{drain: d, leaving: make(chan struct{})}
	s.Server = grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.interceptUnary),
		grpc.ChainStreamInterceptor(s.interceptStream),
	}, opts...)...)
	return s
}

// RegisterService registers a service, as grpc.Server does. The drain calls Shutdown of a registered health.Server.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if h, ok := impl.(shutdowner); ok && desc.ServiceName == healthService {
		s.health = h
	}
	s.Server.RegisterService(desc, impl)
}

// Start serves on ln until the drain. It does not block: it returns nil when the server accepts connections, or an error if
// it cannot. A later error of Accept begins the drain, and Drain.Wait returns it. Start may be called for several listeners.
// If the drain has already begun, Start closes ln and returns nil, so that the program continues to Drain.Wait.
//
// The phase drain.Accepting accepts the connections that wait in the queue, and closes ln. Connections that have not
// finished their handshakes two seconds later are closed, because GracefulStop would make all others wait for them. The
// phase drain.Requests tells the clients to leave and finishes their RPCs. RPCs that remain shortly before the end of the
// phase are cut, and counted in the error. The program must not call GracefulStop or Stop itself.
//
// Start closes ln in any case. If ln has no SetDeadline, the connections in its queue are lost unless another process has the
// socket too. So use grpc.Creds for TLS, not a TLS listener. grpc gets connections that are not a *net.TCPConn, and
// therefore does not set TCP_USER_TIMEOUT on them. To detect dead clients, set keepalive.ServerParameters.Time to less than
// its two hours.
func (s *Server) Start(ln net.Listener) error {
	s.once.Do(func() { s.drain.On(drain.Requests, "gRPC server", s.finish) })
	l := newListener(ln)
	name := "gRPC server " + ln.Addr().String()
	s.drain.On(drain.Accepting, name, func(ctx context.Context) error {
		s.giveNotice(ctx)
		return l.stop(ctx)
	})
	if closed(s.drain.Draining()) {
		l.Close()
		return nil
	}
	failed := make(chan error, 1)
	s.drain.Go(name, func(context.Context) error { return s.accept(l, failed) })
	select {
	case <-l.accepting:
		return nil
	case <-s.drain.Draining():
		return nil
	case err := <-failed:
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
}

// Serve is Start and Drain.Wait in one, for the last server of a program: it returns after the drain.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.Start(ln); err != nil {
		return err
	}
	return s.drain.Wait()
}

// accept passes the error of a server that ended before it accepted to Start. A later error begins the drain.
func (s *Server) accept(l *listener, failed chan<- error) error {
	defer l.Close()
	err := s.Server.Serve(l)
	switch {
	case !closed(l.accepting) && !closed(s.drain.Draining()):
		failed <- err
	case err != nil && !errors.Is(err, drain.ErrDraining) && !errors.Is(err, grpc.ErrServerStopped):
		return err // an error of a worker begins the drain
	default:
		s.drain.Drain()
	}
	return nil
}

func (s *Server) giveNotice(ctx context.Context) {
	if s.Notice <= 0 {
		return
	}
	s.sayNotServing()
	select {
	case <-time.After(s.Notice):
	case <-ctx.Done():
	}
}

func (s *Server) sayNotServing() {
	if s.health != nil {
		s.health.Shutdown()
	}
}

// finish returns when all clients have left, or shortly before ctx is done.
func (s *Server) finish(ctx context.Context) error {
	ctx, cancel := withReportMargin(ctx)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-time.After(goAwayTimeout):
	case <-ctx.Done():
	}
	s.sayNotServing()
	close(s.leaving)
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return s.cut(ctx)
	}
}

// cut also makes GracefulStop return, once the handlers return because their contexts are cancelled.
func (s *Server) cut(ctx context.Context) error {
	s.stopped.Store(true)
	n := s.inFlight.Load()
	s.Stop()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("cut unfinished RPCs (%d): %w", n, context.Cause(ctx))
}

func withReportMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, end.Add(-min(reportMargin, time.Until(end)/2)), errors.New("the step's time limit has expired"))
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
