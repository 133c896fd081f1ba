//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// grpcLoad is clients with a connection each. There is no retry policy, and no RPC waits for a server that is not there.
type grpcLoad struct {
	unary, streams *crowd
	streamers      []*streamer
}

const callers = 10 // of each kind

func startGRPC(t *testing.T, addr string) *grpcLoad {
	t.Helper()
	l := &grpcLoad{unary: newCrowd(t, "gRPC unary", 10*time.Millisecond), streams: newCrowd(t, "gRPC streams", 20*time.Millisecond)}
	for n := range callers {
		l.unary.add(&caller{rpc: connect(t, addr)})
		s := &streamer{rpc: connect(t, addr), of: l.streams, name: fmt.Sprintf("gRPC stream %d", n), next: 1}
		l.streamers = append(l.streamers, s)
		l.streams.add(s)
	}
	return l
}

// rpc is a connection.
type rpc struct {
	testpb.TestServiceClient
	conn *grpc.ClientConn
}

func (c rpc) close() { c.conn.Close() }

func connect(t *testing.T, addr string) rpc {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	return rpc{testpb.NewTestServiceClient(conn), conn}
}

// settle returns when each streamer has a stream of the current generation.
func (l *grpcLoad) settle(t *testing.T, upgrades int) {
	t.Helper()
	l.streams.await(t, fmt.Sprintf("each has its stream %d", upgrades+1), func() bool {
		for _, s := range l.streamers {
			if s.begun != upgrades+1 {
				return false
			}
		}
		return true
	})
}

func (l *grpcLoad) end(t *testing.T) {
	t.Helper()
	l.unary.end(t)
	l.streams.end(t)
}

func (l *grpcLoad) check(t *testing.T, upgrades int, j *entries) {
	t.Helper()
	for _, s := range l.streamers {
		// grpc does not tell when its GOAWAY has come: a client on a machine with no time to spare may open a stream on
		// the server that leaves, which ends at once with nothing in it.
		if s.begun != upgrades+1 || s.replaced < upgrades {
			t.Errorf("%s: begun %d times, ended by the server %d times", s.name, s.begun, s.replaced)
		}
		j.mustHave(t, s.acknowledged)
	}
}

type caller struct {
	rpc
	sent int
}

func (c *caller) exchange(ctx context.Context) error {
	c.sent++
	text := fmt.Sprint("call ", c.sent)
	answer, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte(text)}})
	if err != nil {
		return err
	}
	if got := string(answer.Payload.GetBody()); got != text {
		return fmt.Errorf("the answer is %q", got)
	}
	return nil
}

// streamer sends one message after the other, over one stream after the other.
type streamer struct {
	rpc
	of           *crowd
	name         string
	stream       testpb.TestService_FullDuplexCallClient
	next         int
	acknowledged []string
	begun        int // streams that have answered; guarded by of
	replaced     int // streams that the server has ended
	fresh        bool
}

func (s *streamer) exchange(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return fmt.Errorf("cannot open a stream: %w", err)
	}
	err := s.say(fmt.Sprintf("%s: %d", s.name, s.next))
	if err == nil {
		return nil
	}
	s.stream = nil
	if end := status.Convert(err); end.Code() != codes.Unavailable || end.Message() != "the server is being replaced" {
		return err
	}
	s.replaced++
	return nil
}

func (s *streamer) open(ctx context.Context) (err error) {
	if s.stream == nil {
		s.stream, err = s.FullDuplexCall(ctx)
		s.fresh = true
	}
	return err
}

// say counts a message as said when it has come back. One that has not is said again, over the next stream.
func (s *streamer) say(entry string) error {
	err := s.stream.Send(&request{Payload: &testpb.Payload{Body: []byte(entry)}})
	if err != nil && !errors.Is(err, io.EOF) { // of which Recv tells the reason
		return err
	}
	answer, err := s.stream.Recv()
	if err != nil {
		return err
	}
	if got := string(answer.Payload.GetBody()); got != entry {
		return fmt.Errorf("%q came back for %q", got, entry)
	}
	s.next++
	s.acknowledged = append(s.acknowledged, entry)
	if s.fresh {
		s.fresh = false
		s.of.note(func() { s.begun++ })
	}
	return nil
}
