package main

import (
	"context"
	"errors"
	"io"

	"github.com/gracerun/grace/drain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// service is a service of grpc's own tests, so that the example needs no protoc.
type service struct {
	testpb.UnimplementedTestServiceServer
	journal *journal
}

type (
	request  = testpb.StreamingOutputCallRequest
	response = testpb.StreamingOutputCallResponse
	duplex   = grpc.BidiStreamingServer[request, response]
)

// UnaryCall returns its payload.
func (service) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: r.Payload}, nil
}

// FullDuplexCall adds each message to the journal, and then sends it back. It does not end by itself. If the stream ends before
// a message was sent back, the message is not in the journal, so the client sends it again on its next stream.
func (s service) FullDuplexCall(stream duplex) error {
	requests, failed := receive(stream)
	for {
		select {
		case r := <-requests:
			if err := s.add(stream, r); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-drain.Draining(stream.Context()):
			return status.Error(codes.Unavailable, "the server is being replaced")
		}
	}
}

func (s service) add(stream duplex, r *request) error {
	if err := s.journal.add(string(r.Payload.GetBody())); err != nil {
		return err
	}
	return stream.Send(&response{Payload: r.Payload})
}

// receive turns a stream into a channel, to select on. The channel is closed at the end of the stream.
func receive(stream duplex) (<-chan *request, <-chan error) {
	requests, failed := make(chan *request), make(chan error, 1)
	go func() {
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) { // the client has ended the stream
				failed <- nil
				return
			}
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return requests, failed
}
