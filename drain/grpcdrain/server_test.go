package grpcdrain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/drain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serve gives a server that has the service and the health service.
func serve(t *testing.T, d *drain.Drain, service *echo, ln net.Listener) *Server {
	s := NewServer(d)
	s.RegisterService(&echoService, service)
	healthpb.RegisterHealthServer(s, health.NewServer())
	mustStart(t, s, ln)
	return s
}

func mustStart(t *testing.T, s *Server, ln net.Listener) {
	t.Helper()
	if err := s.Start(ln); err != nil {
		t.Fatal(err)
	}
}

// held is a service whose RPCs say that they have begun, and end when they are told to, or at the end of their contexts.
func held() (service *echo, begun chan context.Context, finish chan struct{}) {
	begun, finish = make(chan context.Context, 10), make(chan struct{})
	hold := func(ctx context.Context) error {
		begun <- ctx
		select {
		case <-finish:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return &echo{
		say:   func(ctx context.Context, text string) (string, error) { return text, hold(ctx) },
		count: func(stream grpc.ServerStream) error { return hold(stream.Context()) },
	}, begun, finish
}

func TestDrainFinishesWhatHasBegun(t *testing.T) {
	service, begun, finish := held()
	ln := listen(t)
	d := newDrain(t)
	serve(t, d, service, ln)
	client := connect(t, ln.Addr())
	said := make(chan error, 1)
	go func() { said <- say(t.Context(), client, "hello") }()
	inUnary := receive(t, begun)
	stream, err := count(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	inStream := receive(t, begun)
	d.Drain()
	for _, ctx := range []context.Context{inUnary, inStream} {
		receive(t, drain.Draining(ctx))
		if ctx.Err() != nil {
			t.Error("the drain has cancelled the context of an RPC")
		}
	}
	close(finish)
	if err := receive(t, said); err != nil {
		t.Error(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.Int64Value)); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestEndOfTheTimeCutsAndCounts(t *testing.T) {
	service, begun, _ := held()
	ln := listen(t)
	var log bytes.Buffer
	d := newDrain(t, drain.PhaseTimeout(drain.Requests, 2*reportMargin), drain.Log(slog.New(slog.NewTextHandler(&log, nil))))
	serve(t, d, service, ln)
	client := connect(t, ln.Addr())
	said := make(chan error, 2)
	for range 2 {
		go func() { said <- say(t.Context(), client, "hello") }()
		receive(t, begun)
	}
	d.Drain()
	err := d.Wait()
	if err == nil || !strings.Contains(err.Error(), "cut unfinished RPCs (2): the step's time limit has expired") {
		t.Errorf("the drain ended with %v", err)
	}
	if !strings.Contains(log.String(), "s (2 in flight)") {
		t.Errorf("the log does not tell what was given up:\n%s", &log)
	}
	for range 2 {
		if err := receive(t, said); status.Code(err) != codes.Unavailable {
			t.Errorf("an RPC that was cut ended with %v", err)
		}
	}
	awaitNo(t, "grpc.(*Server).GracefulStop")
}

func TestEndAtOnceCutsToo(t *testing.T) {
	service, begun, _ := held()
	ln := listen(t)
	d := newDrain(t, drain.Signals(syscall.SIGUSR1, syscall.SIGUSR2))
	s := serve(t, d, service, ln)
	ended := startWait(t, d)
	client := connect(t, ln.Addr())
	said := make(chan error, 1)
	go func() { said <- say(t.Context(), client, "hello") }()
	receive(t, begun)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	receive(t, s.leaving)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, said); status.Code(err) != codes.Unavailable {
		t.Errorf("an RPC that was cut ended with %v", err)
	}
	if err := receive(t, ended); err == nil || !strings.Contains(err.Error(), "second signal: received SIGUSR2") {
		t.Errorf("the drain ended with %v", err)
	}
	awaitNo(t, "grpc.(*Server).GracefulStop")
}

// startWait returns when Wait has been called: before that, a signal that ends everything at once ends the process.
func startWait(t *testing.T, d *drain.Drain) <-chan error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	ended := make(chan error, 1)
	go func() { ended <- d.Wait() }()
	notify.SetReadDeadline(time.Now().Add(testTimeout))
	if _, err := notify.Read(make([]byte, 100)); err != nil {
		t.Fatalf("Wait does not say that it is ready: %v", err)
	}
	return ended
}

// awaitNo waits until no goroutine is in a function.
func awaitNo(t *testing.T, function string) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for stacks := make([]byte, 1<<20); strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), function); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("a goroutine is in %s still", function)
		}
	}
}

func TestSilentConnectionHoldsNobodyUp(t *testing.T) {
	ln := listen(t)
	d := newDrain(t)
	serve(t, d, newEcho(), ln)
	silent, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	frames := newRecorder()
	if err := say(t.Context(), connect(t, ln.Addr(), frames.option()), "hello"); err != nil {
		t.Fatal(err)
	}
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if names := frames.names(); !slices.Contains(names, "leave") {
		t.Errorf("the client that was served was not told to leave: %v", names)
	}
}

// The first GOAWAY comes before the end of a stream; a client that saw it later would open a stream on this connection.
func TestClientsAreToldToLeaveBeforeTheirStreamsEnd(t *testing.T) {
	service, begun, finish := held()
	service.count = countUntilDraining
	ln := listen(t)
	d := newDrain(t)
	serve(t, d, service, ln)
	frames := newRecorder()
	client := connect(t, ln.Addr(), frames.option())
	stream, err := count(t.Context(), client)
	if err == nil {
		err = next(stream, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 1)
	go func() { said <- say(t.Context(), client, "hello") }()
	receive(t, begun)
	d.Drain()
	for n := int64(2); err == nil; n++ { // the handler may take a number still before it sees the drain
		err = next(stream, n)
	}
	if status.Convert(err).Message() != status.Convert(errReplaced).Message() {
		t.Errorf("the stream ended with %v", err)
	}
	frames.await(t, "left after 3")
	close(finish)
	if err := receive(t, said); err != nil {
		t.Error(err)
	}
	frames.await(t, "end of 3")
	names := frames.names()
	if leave, end := slices.Index(names, "leave"), slices.Index(names, "end of 1"); leave < 0 || end < leave {
		t.Errorf("the server sent %v", names)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHealthEnds(t *testing.T) {
	ln := listen(t)
	d := newDrain(t)
	s := serve(t, d, newEcho(), ln)
	watch := startWatch(t, ln.Addr())
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	for code := codes.OK; code == codes.OK; {
		said, err := watch.Recv()
		if code = status.Code(err); code != codes.OK && code != codes.Canceled {
			t.Errorf("the watch ended with %v", err)
		}
		if code == codes.OK && said.Status != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("in the drain the health is %v", said.Status)
		}
	}
	said, err := s.health.(*health.Server).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || said.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("after the drain the health is %v, %v", said, err)
	}
}

func TestNoticeIsGivenWhileTheServerAccepts(t *testing.T) {
	ln := listen(t)
	d := newDrain(t, drain.Signals(syscall.SIGUSR1))
	s := NewServer(d)
	s.Notice = time.Hour
	s.RegisterService(&echoService, newEcho())
	healthpb.RegisterHealthServer(s, health.NewServer())
	mustStart(t, s, ln)
	ended := startWait(t, d)
	watch := startWatch(t, ln.Addr())
	d.Drain()
	if said, err := watch.Recv(); err != nil || said.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the health is %v, %v", said, err)
	}
	if err := say(t.Context(), connect(t, ln.Addr()), "hello"); err != nil {
		t.Errorf("a new connection in the time of the notice: %v", err)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, ended); err == nil {
		t.Error("an end at once is no error")
	}
	s.Stop()
}

// startWatch returns when the health is known.
func startWatch(t *testing.T, addr net.Addr) grpc.ServerStreamingClient[healthpb.HealthCheckResponse] {
	t.Helper()
	watch, err := healthpb.NewHealthClient(connect(t, addr)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if said, err := watch.Recv(); err != nil || said.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("at first the health is %v, %v", said, err)
	}
	return watch
}

func TestErrorOfAcceptBeginsTheDrain(t *testing.T) {
	ln := listen(t)
	d := newDrain(t)
	serve(t, d, newEcho(), ln)
	ln.Close()
	if err := d.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the drain ended with %v", err)
	}
}

func TestServerThatIsStoppedBeginsTheDrain(t *testing.T) {
	d := newDrain(t)
	serve(t, d, newEcho(), listen(t)).Stop()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStartThatComesTooLateClosesItsListener(t *testing.T) {
	d := newDrain(t)
	d.Drain()
	receive(t, d.Done())
	ln := listen(t)
	serve(t, d, newEcho(), ln)
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v", err)
	}
}

func TestServerOfTwoListeners(t *testing.T) {
	one, two := listen(t), listen(t)
	d := newDrain(t)
	s := serve(t, d, newEcho(), one)
	mustStart(t, s, struct{ net.Listener }{two}) // which has no deadlines
	for _, ln := range []net.Listener{one, two} {
		if err := say(t.Context(), connect(t, ln.Addr()), "hello"); err != nil {
			t.Error(err)
		}
	}
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	for _, ln := range []net.Listener{one, two} {
		if _, err := net.Dial("tcp", ln.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the drain a connection gives %v", err)
		}
	}
}

// A server that cannot start is an error at once, and no end of the others.
func TestServerThatCannotStartIsAnError(t *testing.T) {
	d := newDrain(t)
	s := NewServer(d)
	s.Stop()
	ln := listen(t)
	err := s.Start(ln)
	if want := "cannot start gRPC server " + ln.Addr().String(); !errors.Is(err, grpc.ErrServerStopped) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error is %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v", err)
	}
	other := listen(t)
	serve(t, d, newEcho(), other)
	if err := say(t.Context(), connect(t, other.Addr()), "hello"); err != nil {
		t.Error(err)
	}
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestServeReturnsAfterTheDrain(t *testing.T) {
	service, begun, finish := held()
	d := newDrain(t)
	s := NewServer(d)
	s.RegisterService(&echoService, service)
	ln, ended := listen(t), make(chan error, 1)
	d.On(drain.Resources, "held", func(context.Context) error {
		select {
		case err := <-ended:
			t.Errorf("it returns before the end of the drain: %v", err)
		default:
		}
		return errors.New("broken")
	})
	go func() { ended <- s.Serve(ln) }()
	client := connect(t, ln.Addr())
	said := make(chan error, 1)
	go func() { said <- say(t.Context(), client, "hello") }()
	receive(t, begun)
	d.Drain()
	close(finish)
	if err := receive(t, said); err != nil {
		t.Error(err)
	}
	if err := receive(t, ended); err == nil || err.Error() != "cannot end held: broken" {
		t.Errorf("it returns %v", err)
	}
}

func TestServeThatCannotStartReturns(t *testing.T) {
	s := NewServer(newDrain(t))
	s.Stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listen(t)) }()
	if err := receive(t, ended); !errors.Is(err, grpc.ErrServerStopped) {
		t.Errorf("it returns %v", err)
	}
}
