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

	// Notice is how long the server goes on accepting after its health service has said NOT_SERVING, for balancers that
	// have to see that first. It is a part of the time of drain.Accepting, and none unless set. Leave it so where a
	// successor serves the same address. Set it before Start.
	Notice time.Duration

	drain    *drain.Drain
	inFlight atomic.Int64
	stopped  atomic.Bool   // what is in flight was cut
	leaving  chan struct{} // closed when the clients have been told to leave
	health   shutdowner
	once     sync.Once // for what is done at the first Start
}

type shutdowner interface{ Shutdown() }

const (
	healthService = "grpc.health.v1.Health"
	watchMethod   = "/grpc.health.v1.Health/Watch"
)

const (
	// goAwayPatience is for GracefulStop to send the first GOAWAY, which it does at once but does not tell.
	goAwayPatience = 100 * time.Millisecond
	// spare is for the error of a step that ends late: a Drain does not hear one that comes with the end of the time.
	spare = 500 * time.Millisecond
)

// NewServer makes a server that ends with d. Its interceptors come first of those that are chained.
func NewServer(d *drain.Drain, opts ...grpc.ServerOption) *Server {
	s := &Server{drain: d, leaving: make(chan struct{})}
	s.Server = grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.interceptUnary),
		grpc.ChainStreamInterceptor(s.interceptStream),
	}, opts...)...)
	return s
}

// RegisterService takes note of a health.Server, which has its Shutdown called in the drain.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if h, ok := impl.(shutdowner); ok && desc.ServiceName == healthService {
		s.health = h
	}
	s.Server.RegisterService(desc, impl)
}

// Start serves on ln until the drain. It returns when the server accepts connections, or with the error why it cannot. A
// later error of Accept begins the drain, and Drain.Wait returns it. There may be several listeners. If the drain has
// begun already, ln is closed and the error is nil: the program goes on to Drain.Wait.
//
// In drain.Accepting, connections that wait in the queue are accepted still, then ln is closed. Those that have not said
// hello within two seconds are closed; GracefulStop would let all others wait for them. In drain.Requests, clients are
// told to leave, and what they have begun is finished. What remains shortly before the end of the phase is cut, and
// counted in the error. The program does not call GracefulStop or Stop itself.
//
// Start closes ln. With a ln without SetDeadline what waits in its queue is lost, unless another process has the socket
// too. Do TLS by grpc.Creds, not by the listener. The connections that grpc gets are no *net.TCPConn, so it does not set
// TCP_USER_TIMEOUT on them: a shorter keepalive.ServerParameters.Time than its two hours finds clients that are dead.
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

// accept gives the error of a server that has ended before it accepted to Start. Later ones are the drain's.
func (s *Server) accept(l *listener, failed chan<- error) error {
	defer l.Close()
	err := s.Server.Serve(l)
	switch {
	case !closed(l.accepting) && !closed(s.drain.Draining()):
		failed <- err
	case err != nil && !errors.Is(err, drain.ErrDraining) && !errors.Is(err, grpc.ErrServerStopped):
		return err // as a worker's, it begins the drain
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

// finish returns when all clients have left, or soon before ctx is done.
func (s *Server) finish(ctx context.Context) error {
	ctx, cancel := withSpare(ctx)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-time.After(goAwayPatience):
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

// cut also lets GracefulStop return, as soon as the handlers heed the end of their contexts.
func (s *Server) cut(ctx context.Context) error {
	s.stopped.Store(true)
	n := s.inFlight.Load()
	s.Stop()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("cut unfinished RPCs (%d): %w", n, context.Cause(ctx))
}

func withSpare(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, end.Add(-min(spare, time.Until(end)/2)), errors.New("their time has expired"))
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
