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
	afterDrain   wait
	afterFailure wait
	stream       func(context.Context) (<-chan struct{}, func())
	log          *slog.Logger
}

func newOptions(opts []Option) options {
	o := options{
		heartbeat:    15 * time.Second,
		writeTimeout: 5 * time.Second,
		afterDrain:   wait{0, time.Second},
		afterFailure: wait{2 * time.Second, 4 * time.Second},
		stream:       untilDrain,
		log:          slog.Default(),
	}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// untilDrain gives a stream that begins during the drain no time.
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

// wait is a span from which each client gets a time of its own.
type wait struct{ min, max time.Duration }

func (w wait) frame() []byte {
	d := w.min
	if w.max > w.min {
		d += rand.N(w.max - w.min + 1)
	}
	return append(appendField(nil, "retry", milliseconds(d)), '\n')
}

// Heartbeat is how long a stream is silent before it gets a comment, which keeps proxies from closing it and finds out
// whether the client is still there. 15 s unless set; 0 means none.
func Heartbeat(d time.Duration) Option {
	if d <= 0 {
		d = math.MaxInt64
	}
	return func(o *options) { o.heartbeat = d }
}

// WriteTimeout is how long one message may take before the client is given up, 5 s unless set. It replaces the
// WriteTimeout of the server. Keep it shorter than the drain's Timeout: a client that does not read can hold the drain for
// so long. Over HTTP/2 it counts for a client that does not let a stream go on; only the WriteByteTimeout of
// http.HTTP2Config gives up a connection on which nothing goes through any more.
func WriteTimeout(d time.Duration) Option { return func(o *options) { o.writeTimeout = d } }

// Retry is how long clients wait before they come back after a drain, each a time of its own from min to max, so that
// the successor does not get all of them at once. 0 to 1 s unless set. Ten thousand clients or a costly start of a
// stream need a longer max.
func Retry(min, max time.Duration) Option {
	return func(o *options) { o.afterDrain = wait{min, max} }
}

// RetryAfterFailure is how long clients wait when a stream has ended in any other way, each a time of its own from min
// to max; 2 to 4 s unless set. Each stream begins with it, since clients would go on with the short time of the last
// drain otherwise, and hammer a server that is down.
func RetryAfterFailure(min, max time.Duration) Option {
	return func(o *options) { o.afterFailure = wait{min, max} }
}

// Finish is for streams that end by themselves soon, such as the progress of a job: the drain waits for them, as it
// does for any request, and does not end their contexts.
func Finish() Option {
	return func(o *options) {
		o.stream = func(context.Context) (<-chan struct{}, func()) { return nil, func() {} }
	}
}

// Log is where an error goes that a handler's function returns, slog.Default() unless set. That the client has left or
// that the drain has ended the stream is none.
func Log(log *slog.Logger) Option { return func(o *options) { o.log = log } }
