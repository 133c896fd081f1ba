package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/gracerun/grace/drain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echo returns its input.
type echo struct{}

// Say returns its message.
func (echo) Say(_ context.Context, text *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return text, nil
}

// Count first sends the number of its process, and then returns each number. It does not end by itself.
func (e echo) Count(stream grpc.BidiStreamingServer[wrapperspb.Int64Value, wrapperspb.Int64Value]) error {
	if err := stream.Send(wrapperspb.Int64(int64(os.Getpid()))); err != nil {
		return err
	}
	numbers, failed := e.receive(stream)
	for {
		select {
		case number := <-numbers:
			if err := stream.Send(number); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-drain.Draining(stream.Context()):
			return status.Error(codes.Unavailable, "the server is being replaced")
		}
	}
}

// receive turns a stream into a channel, so that Count can select on it. The channel is closed at the end of the stream.
func (echo) receive(stream grpc.BidiStreamingServer[wrapperspb.Int64Value, wrapperspb.Int64Value]) (<-chan *wrapperspb.Int64Value, <-chan error) {
	numbers, failed := make(chan *wrapperspb.Int64Value), make(chan error, 1)
	go func() {
		for {
			number, err := stream.Recv()
			if err != nil {
				failed <- atEnd(err)
				return
			}
			select {
			case numbers <- number:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return numbers, failed
}

// atEnd turns the client's end of the stream into a nil error.
func atEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// echoService is what protoc-gen-go-grpc generates from
//
//	service Echo {
//	  rpc Say(google.protobuf.StringValue) returns (google.protobuf.StringValue);
//	  rpc Count(stream google.protobuf.Int64Value) returns (stream google.protobuf.Int64Value);
//	}
//
// written by hand, so that the example needs no protoc.
var echoService = grpc.ServiceDesc{
	ServiceName: "example.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Say", Handler: handleSay}},
	Streams:     []grpc.StreamDesc{{StreamName: "Count", Handler: handleCount, ServerStreams: true, ClientStreams: true}},
}

const (
	sayMethod   = "/example.Echo/Say"
	countMethod = "/example.Echo/Count"
)

func handleSay(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	text := new(wrapperspb.StringValue)
	if err := decode(text); err != nil {
		return nil, err
	}
	return intercept(ctx, text, &grpc.UnaryServerInfo{Server: srv, FullMethod: sayMethod}, func(ctx context.Context, req any) (any, error) {
		return srv.(echo).Say(ctx, req.(*wrapperspb.StringValue))
	})
}

func handleCount(srv any, stream grpc.ServerStream) error {
	return srv.(echo).Count(&grpc.GenericServerStream[wrapperspb.Int64Value, wrapperspb.Int64Value]{ServerStream: stream})
}
