package grpcdrain

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracerun/grace/drain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

var (
	replacements = flag.Int("replacements", 5, "how often the load tests replace the server")
	clients      = flag.Int("clients", 20, "how many clients of each kind the load tests have")
)

var quiet = slog.New(slog.DiscardHandler)

// load is what clients do and see that never repeat an RPC.
type load struct {
	ctx      context.Context
	stop     context.CancelFunc
	clients  sync.WaitGroup
	answered atomic.Int64
	begun    atomic.Int64 // streams with a message
	progress chan struct{}

	mu       sync.Mutex
	failures map[string]int
}

func startLoad(t *testing.T, addr net.Addr, opts ...grpc.DialOption) *load {
	l := &load{progress: make(chan struct{}, 1), failures: map[string]int{}}
	l.ctx, l.stop = context.WithCancel(t.Context())
	for range *clients {
		unary, streaming := connect(t, addr, opts...), connect(t, addr, opts...)
		l.clients.Go(func() { l.repeat(func() error { return l.say(unary) }) })
		l.clients.Go(func() { l.repeat(func() error { return l.count(streaming) }) })
	}
	return l
}

func (l *load) repeat(do func() error) {
	for l.ctx.Err() == nil {
		if err := do(); err != nil && l.ctx.Err() == nil {
			l.mu.Lock()
			l.failures[err.Error()]++
			l.mu.Unlock()
		}
	}
}

func (l *load) note() {
	l.answered.Add(1)
	select {
	case l.progress <- struct{}{}:
	default:
	}
}

func (l *load) say(client *grpc.ClientConn) error {
	err := say(l.ctx, client, "hello")
	if err == nil {
		l.note()
	}
	return err
}

// count opens a stream and counts until the server ends it in order.
func (l *load) count(client *grpc.ClientConn) error {
	stream, err := count(l.ctx, client)
	if err != nil {
		return fmt.Errorf("cannot open: %w", err)
	}
	for n := int64(0); ; n++ {
		err := next(stream, n)
		if status.Code(err) == codes.Unavailable && status.Convert(err).Message() == status.Convert(errReplaced).Message() {
			return nil
		}
		if err != nil {
			return fmt.Errorf("at message %d: %w", n, err)
		}
		if n == 0 {
			l.begun.Add(1)
		}
		l.note()
	}
}

// await returns after some more answers, and not before so many streams have begun.
func (l *load) await(t *testing.T, streams int) {
	t.Helper()
	timeout := time.After(testTimeout)
	for until := l.answered.Load() + int64(20**clients); l.answered.Load() < until || l.begun.Load() < int64(streams); {
		select {
		case <-l.progress:
		case <-timeout:
			t.Fatal("the clients get no answers any more")
		}
	}
}

// replaceUnderLoad replaces a server by another one on the same socket, as a supervisor does with processes.
func replaceUnderLoad(t *testing.T, newServer func(*drain.Drain) *Server, opts ...grpc.DialOption) *load {
	ln := listen(t)
	start := func() *drain.Drain {
		d := newDrain(t)
		s := newServer(d)
		s.RegisterService(&echoService, newEcho())
		healthpb.RegisterHealthServer(s, health.NewServer())
		mustStart(t, s, share(t, ln))
		return d
	}
	current := start()
	l := startLoad(t, ln.Addr(), opts...)
	l.await(t, *clients)
	for n := range *replacements {
		successor := start()
		current.Drain()
		if err := current.Wait(); err != nil {
			t.Error(err)
		}
		current = successor
		l.await(t, *clients*(n+2))
	}
	l.stop()
	l.clients.Wait()
	t.Logf("%d replacements: %d answers, %d streams, failures %v", *replacements, l.answered.Load(), l.begun.Load(), l.failures)
	return l
}

func share(t *testing.T, ln *net.TCPListener) net.Listener {
	t.Helper()
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shared, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

// watching is the configuration of a client that sends RPCs to healthy servers only.
const watching = `{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`

func TestReplacedServersLoseNothing(t *testing.T) {
	plain := func(d *drain.Drain) *Server { return NewServer(d) }
	certificate, roots := certify(t)
	byTLS := func(d *drain.Drain) *Server {
		return NewServer(d, grpc.Creds(credentials.NewServerTLSFromCert(certificate)))
	}
	for name, test := range map[string]struct {
		newServer func(*drain.Drain) *Server
		opts      []grpc.DialOption
	}{
		"plain":                         {plain, nil},
		"TLS":                           {byTLS, []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "example.com"))}},
		"clients that watch the health": {plain, []grpc.DialOption{grpc.WithDefaultServiceConfig(watching)}},
	} {
		t.Run(name, func(t *testing.T) {
			l := replaceUnderLoad(t, test.newServer, test.opts...)
			if len(l.failures) > 0 {
				t.Error("RPCs failed")
			}
			// grpc does not tell when its GOAWAY has gone out: a client on a machine with no time to spare may open a
			// stream on the server that leaves, which ends at once with nothing in it.
			if want := int64(*clients * (*replacements + 1)); l.begun.Load() != want {
				t.Errorf("%d streams have begun, not %d", l.begun.Load(), want)
			}
		})
	}
}

// TestNoticeHurtsClientsOfOneAddress shows why it is no default, and that the test above can fail.
func TestNoticeHurtsClientsOfOneAddress(t *testing.T) {
	l := replaceUnderLoad(t, func(d *drain.Drain) *Server {
		s := NewServer(d)
		s.Notice = 100 * time.Millisecond
		return s
	}, grpc.WithDefaultServiceConfig(watching))
	if len(l.failures) == 0 {
		t.Error("no RPC failed")
	}
}

// certify gives a certificate for example.com.
func certify(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return &srv.TLS.Certificates[0], roots
}
