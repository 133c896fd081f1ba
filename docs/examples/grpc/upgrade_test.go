//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // for the clients that watch it
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

const (
	upgrades = 20
	callers  = 20 // of each kind
)

const patience = harness.Patience

func TestMain(m *testing.M) { os.Exit(supervised.Run(m.Run, ".")) }

// watching is the configuration of a client that sends RPCs to healthy servers only.
const watching = `{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`

// load is what clients do and see. There is no retry policy, and no RPC waits for a server that is not there. What cannot
// be switched off is that grpc itself sends an RPC once more of which the server has said, by the last GOAWAY or
// REFUSED_STREAM, that it did not take it: for a server that sends GOAWAY twice that does not happen, and in any case the
// server has not seen the RPC before.
type load struct {
	addr     string
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup
	answers  atomic.Int64
	messages atomic.Int64
	changed  chan struct{} // has an element if something was counted since the last receive

	mu       sync.Mutex
	streams  map[int64]int // how many each process had
	open     map[int64]int // how many it has
	failures map[string]int
}

func startLoad(t *testing.T, addr string) *load {
	l := &load{addr: addr, changed: make(chan struct{}, 1), streams: map[int64]int{}, open: map[int64]int{}, failures: map[string]int{}}
	l.ctx, l.stop = context.WithCancel(t.Context())
	t.Cleanup(l.end)
	for range callers {
		l.start(t, l.say)
		l.start(t, l.say, grpc.WithDefaultServiceConfig(watching))
		l.start(t, l.count)
	}
	return l
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}

// start repeats an RPC on a connection of its own.
func (l *load) start(t *testing.T, rpc func(*grpc.ClientConn) error, opts ...grpc.DialOption) {
	client, err := grpc.NewClient("passthrough:///"+l.addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	l.running.Go(func() {
		defer client.Close()
		for l.ctx.Err() == nil {
			if err := rpc(client); err != nil && l.ctx.Err() == nil {
				l.note(func() { l.failures[err.Error()]++ })
			}
		}
	})
}

func (l *load) note(what func()) {
	l.mu.Lock()
	what()
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *load) say(client *grpc.ClientConn) error {
	answer := new(wrapperspb.StringValue)
	if err := client.Invoke(l.ctx, sayMethod, wrapperspb.String("hello"), answer); err != nil {
		return fmt.Errorf("say: %w", err)
	}
	if answer.Value != "hello" {
		return fmt.Errorf("the answer is %q", answer.Value)
	}
	l.answers.Add(1)
	return nil
}

// count opens a stream, and is content with one that the server ends in order. Only one with a number in it counts: grpc
// does not tell when its GOAWAY has gone out, and a client on a machine with no time to spare may open a stream on the
// server that leaves, which ends at once.
func (l *load) count(client *grpc.ClientConn) error {
	stream, err := client.NewStream(l.ctx, &echoService.Streams[0], countMethod)
	if err != nil {
		return fmt.Errorf("cannot open a stream: %w", err)
	}
	server := new(wrapperspb.Int64Value)
	if err := stream.RecvMsg(server); err != nil {
		return fmt.Errorf("a stream does not begin: %w", err)
	}
	for n := int64(1); ; n++ {
		if err := l.exchange(stream, n); status.Convert(err).Message() == "the server is being replaced" {
			return nil
		} else if err != nil {
			return fmt.Errorf("a stream failed at message %d: %w", n, err)
		}
		if n == 1 {
			l.note(func() { l.streams[server.Value]++; l.open[server.Value]++ })
			defer l.note(func() { l.open[server.Value]-- })
		}
	}
}

func (l *load) exchange(stream grpc.ClientStream, n int64) error {
	if err := stream.SendMsg(wrapperspb.Int64(n)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	number := new(wrapperspb.Int64Value)
	if err := stream.RecvMsg(number); err != nil {
		return err
	}
	if number.Value != n {
		return status.Errorf(codes.DataLoss, "%d came back", number.Value)
	}
	l.messages.Add(1)
	return nil
}

// await waits until the process of the pid has all streams.
func (l *load) await(t *testing.T, pid int) {
	t.Helper()
	for timeout := time.After(patience); ; {
		l.mu.Lock()
		open := l.open[int64(pid)]
		l.mu.Unlock()
		if open == callers {
			return
		}
		select {
		case <-l.changed:
		case <-timeout:
			t.Fatalf("process %d has %d streams", pid, open)
		}
	}
}

func TestUpgradesLoseNoRPC(t *testing.T) {
	addr := freeport.Address(t)
	g := supervised.Grace(t, "--listen", addr, "--", harness.Program("grpc"), "-addr", addr)
	l := startLoad(t, addr)
	l.await(t, g.Instance())
	for range upgrades {
		g.UpgradeNext()
		l.await(t, g.Instance())
		g.AwaitDrained()
	}
	l.end()
	t.Logf("%d upgrades: %d answers, %d messages, %d failures", upgrades, l.answers.Load(), l.messages.Load(), len(l.failures))
	for failure, n := range l.failures {
		t.Errorf("%d times: %s", n, failure)
	}
	if len(l.streams) != upgrades+1 {
		t.Errorf("%d processes had streams", len(l.streams))
	}
	for pid, n := range l.streams {
		if n != callers {
			t.Errorf("process %d had %d streams of %d clients", pid, n, callers)
		}
	}
	g.Stop()
}
