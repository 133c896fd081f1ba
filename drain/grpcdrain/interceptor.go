package grpcdrain

import (
	"context"

	"google.golang.org/grpc"
)

// begin counts an RPC as in flight until end is called. An RPC that was cut stays counted, so that the drain can report it.
func (s *Server) begin() (end func()) {
	ended := s.drain.TrackRequest()
	s.inFlight.Add(1)
	return func() {
		s.inFlight.Add(-1)
		if !s.stopped.Load() {
			ended()
		}
	}
}

func (s *Server) interceptUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	defer s.begin()()
	return handle(s.drain.WithDraining(ctx), req)
}

func (s *Server) interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	defer s.begin()()
	ctx := s.drain.WithDraining(ss.Context())
	if info.FullMethod == watchMethod {
		var cancel context.CancelFunc
		ctx, cancel = s.untilLeaving(ctx)
		defer cancel()
	}
	err := handle(srv, &stream{ss, ctx})
	s.holdBack(ss.Context())
	return err
}

// untilLeaving cancels the context once the clients were told to leave. It is for health.Server's watches, which do not
// know of the drain.
func (s *Server) untilLeaving(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.leaving:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// holdBack delays the end of a stream during the drain until the GOAWAY was sent.
func (s *Server) holdBack(ctx context.Context) {
	if !closed(s.drain.Draining()) {
		return
	}
	select {
	case <-s.leaving:
	case <-s.drain.Done():
	case <-ctx.Done():
	}
}

// stream is a ServerStream with another context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }
