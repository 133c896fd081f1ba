package drain

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/gracerun/grace/handoff"
)

// Option changes how a program ends.
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

// Linger is how long idle connections stay open for one more request during the drain, 2 s unless set. A client that
// thinks longer than that between two requests may find its connection closed under the second. The time begins anew
// whenever something happens on any connection.
func Linger(d time.Duration) Option { return func(o *options) { o.linger = d } }

// Spread is the time over which the clients of WebSockets are told to leave, 2 s unless set, so that they do not come
// back all at once. It is half of the time of Streams at most, and fewer than two hundred clients need less.
func Spread(d time.Duration) Option { return func(o *options) { o.spread = d } }

// Timeout bounds the whole drain, 20 s unless set. Under grace it is never longer than nine tenths of what grace allows
// before it kills (--drain-timeout). Keep it shorter than what another supervisor allows: 90 s under systemd, 10 s in
// docker stop, 30 s in Kubernetes, unless configured.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// PhaseTimeout bounds one phase of the drain. It has no effect where it is longer than what the Timeout leaves.
func PhaseTimeout(p Phase, d time.Duration) Option { return func(o *options) { o.limits[p] = d } }

// Log is where the drain tells what did not end in time, slog.Default() unless set.
func Log(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// Context is another way to begin the drain: it begins when ctx is done. Requests do not inherit from ctx.
func Context(ctx context.Context) Option { return func(o *options) { o.ctx = ctx } }

// Signals replaces the signals that begin the drain, SIGTERM and SIGINT unless set. With none, no signal is
// handled, SIGQUIT included; only Context and Drain begin the drain then.
func Signals(begin ...os.Signal) Option { return func(o *options) { o.signals = begin } }
