package drain

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/gracerun/grace/handoff"
)

// Option configures a Drain.
type Option func(*options)

type options struct {
	linger  time.Duration
	spread  time.Duration
	timeout time.Duration
	ctx     context.Context
	signals []os.Signal
	limits  map[Phase]time.Duration
	log     *slog.Logger
}

func newOptions(opts []Option) options {
	o := options{
		linger:  2 * time.Second,
		spread:  2 * time.Second,
		timeout: 20 * time.Second,
		ctx:     context.Background(),
		signals: []os.Signal{syscall.SIGTERM, syscall.SIGINT},
		limits:  map[Phase]time.Duration{},
		log:     slog.Default(),
	}
	for _, opt := range opts {
		opt(&o)
	}
	if allowed, ok := handoff.KillAfter(); ok {
		o.timeout = min(o.timeout, allowed-allowed/10)
	}
	return o
}

// Linger sets how long idle connections stay open for one more request during the drain; the default is 2 s. The time starts
// again whenever any connection gets a request or finishes one. If a client waits longer than that between two requests,
// its connection may be closed just as it sends the second one.
func Linger(d time.Duration) Option { return func(o *options) { o.linger = d } }

// Spread sets the time over which the clients of WebSockets are told to leave, so that they do not all reconnect at
// once; the default is 2 s. It is at most half of the time of the phase Streams, and at most 10 ms for each client.
func Spread(d time.Duration) Option { return func(o *options) { o.spread = d } }

// Timeout bounds the whole drain; the default is 20 s. Under grace it is never longer than nine tenths of the time before
// grace kills the program (--drain-timeout). Under another supervisor, keep it shorter than what that allows. The
// defaults are 90 s for systemd, 10 s for docker stop and 30 s for Kubernetes.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// PhaseTimeout bounds one phase of the drain. It cannot extend the time that the Timeout leaves for the phase.
func PhaseTimeout(p Phase, d time.Duration) Option { return func(o *options) { o.limits[p] = d } }

// Log sets the logger of the drain; the default is slog.Default().
func Log(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// Context makes the drain begin when ctx is done, too. The contexts of requests are not derived from ctx.
func Context(ctx context.Context) Option { return func(o *options) { o.ctx = ctx } }

// Signals sets the signals that begin the drain; the default is SIGTERM and SIGINT. Without arguments no signal is
// handled, not even SIGQUIT: then only Context and Drain.Drain begin the drain.
func Signals(begin ...os.Signal) Option { return func(o *options) { o.signals = begin } }
