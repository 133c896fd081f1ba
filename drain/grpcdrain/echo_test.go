package grpcdrain

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gracerun/grace/drain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// testTimeout bounds every wait of the tests that only a defect makes long.
const testTimeout = 2 * time.Minute

const (
	sayMethod   = "/test.Echo/Say"
	countMethod = "/test.Echo/Count"
)

// echo is a service with one method of each kind, as protoc would describe it.
type echo struct {
	say   func(ctx context.Context, text string) (string, error)
	count func(grpc.ServerStream) error
}

var echoService = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		text := new(wrapperspb.StringValue)
		if err := decode(text); err != nil {
			return nil, err
		}
		say := func(ctx context.Context, req any) (any, error) {
			answer, err := srv.(*echo).say(ctx, req.(*wrapperspb.StringValue).Value)
			return wrapperspb.String(answer), err
		}
		return intercept(ctx, text, &grpc.UnaryServerInfo{Server: srv, FullMethod: sayMethod}, say)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Count", ServerStreams: true, ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		return srv.(*echo).count(stream)
	}}},
}

func sayIt(_ context.Context, text string) (string, error) { return text, nil }

var errReplaced = status.Error(codes.Unavailable, "the server is being replaced")

// countUntilDraining sends each message back.
func countUntilDraining(stream grpc.ServerStream) error {
	numbers := make(chan *wrapperspb.Int64Value)
	go func() {
		defer close(numbers)
		for {
			number := new(wrapperspb.Int64Value)
			if stream.RecvMsg(number) != nil {
				return
			}
			select {
			case numbers <- number:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case number, ok := <-numbers:
			if !ok {
				return nil
			}
			if err := stream.SendMsg(number); err != nil {
				return err
			}
		case <-drain.Draining(stream.Context()):
			return errReplaced
		}
	}
}

func newEcho() *echo { return &echo{sayIt, countUntilDraining} }

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func newDrain(t *testing.T, opts ...drain.Option) *drain.Drain {
	d := drain.New(append([]drain.Option{drain.Signals(), drain.Log(quiet)}, opts...)...)
	t.Cleanup(func() {
		d.Drain()
		<-d.Done()
	})
	return d
}

// connect gives a client that neither retries by a policy nor waits for a server that is not there. It goes on with an
// RPC by itself only if the server has said that it did not take it, which is a part of the protocol.
func connect(t *testing.T, addr net.Addr, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	client, err := grpc.NewClient("passthrough:///"+addr.String(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func say(ctx context.Context, client *grpc.ClientConn, text string) error {
	answer := new(wrapperspb.StringValue)
	err := client.Invoke(ctx, sayMethod, wrapperspb.String(text), answer)
	if err == nil && answer.Value != text {
		return errors.New("the answer is " + answer.Value)
	}
	return err
}

func count(ctx context.Context, client *grpc.ClientConn) (grpc.ClientStream, error) {
	return client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, countMethod)
}

// next sends a number and wants it back.
func next(stream grpc.ClientStream, n int64) error {
	if err := stream.SendMsg(wrapperspb.Int64(n)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	number := new(wrapperspb.Int64Value)
	if err := stream.RecvMsg(number); err != nil {
		return err
	}
	if number.Value != n {
		return errors.New("another number came back")
	}
	return nil
}

// receive fails if nothing comes.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(testTimeout):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}
