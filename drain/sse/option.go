package sse

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/gracerun/grace/drain"
)

// Option changes how a handler streams.
type Option func(*options)

type options struct {
	heartbeat    time.Duration
	writeTimeout time.Duration
	afterDrain   retryRange
	afterFailure retryRange
	stream       func(context.Context) (<-chan struct{}, func())
	log          *slog.Logger
}

func newOptions(opts []Option) options {
	o := options{
		heartbeat:    15 * time.Second,
		writeTimeout: 5 * time.Second,
		afterDrain:   retryRange{0, time.Second},
		afterFailure: retryRange{2 * time.Second, 4 * time.Second},
		stream:       untilDrain,
		log:          slog.Default(),
	}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// untilDrain ends a stream that begins during the drain at once.
func untilDrain(ctx context.Context) (ending <-chan struct{}, ended func()) {
	ending, ended = drain.Stream(ctx)
	if draining := drain.Draining(ctx); closed(draining) {
		ending = draining
	}
	return ending, ended
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// retryRange is the range from which each client gets a random time.
type retryRange struct{ min, max time.Duration }

func (w retryRange) frame() []byte {
	d := w.min
	if w.max > w.min {
		d += rand.N(w.max - w.min + 1)
	}
	return append(appendField(nil, "retry", milliseconds(d)), '\n')
}

// Heartbeat sets how long a stream may be silent before a comment is sent, which keeps proxies from closing it and detects
// clients that are gone. The default is 15 s; 0 means no heartbeat.
func Heartbeat(d time.Duration) Option {
	if d <= 0 {
		d = math.MaxInt64
	}
	return func(o *options) { o.heartbeat = d }
}

// WriteTimeout sets how long the write of one message may take before the stream ends; the default is 5 s. It replaces the
// WriteTimeout of the server. Keep it shorter than the drain's Timeout, because a client that does not read can delay the
// drain that long. Over HTTP/2 it applies to a client that does not read one stream; only the WriteByteTimeout of
// http.HTTP2Config ends a connection on which nothing can be written any more.
func WriteTimeout(d time.Duration) Option { return func(o *options) { o.writeTimeout = d } }

// Retry sets how long clients wait before they reconnect after a drain: each a random time from min to max, so that
// they do not all reach the successor at once. The default is 0 to 1 s. Use a longer max for ten thousand clients, or if
// the start of a stream is costly.
func Retry(min, max time.Duration) Option {
	return func(o *options) { o.afterDrain = retryRange{min, max} }
}

// RetryAfterFailure sets how long clients wait when a stream has ended in any other way: each a random time from min
// to max. The default is 2 to 4 s. Each stream begins with it; otherwise clients would still use the short time of the last
// drain, and overload a server that is down.
func RetryAfterFailure(min, max time.Duration) Option {
	return func(o *options) { o.afterFailure = retryRange{min, max} }
}

// Finish is for streams that soon end by themselves, such as the progress of a job. The drain waits for them, as for
// any request, and does not cancel their contexts.
func Finish() Option {
	return func(o *options) {
		o.stream = func(context.Context) (<-chan struct{}, func()) { return nil, func() {} }
	}
}

// Log sets the logger for errors of a handler's run; the default is slog.Default(). Errors that come after the client has
// left, or after the drain has ended the stream, are not logged.
func Log(log *slog.Logger) Option { return func(o *options) { o.log = log } }
