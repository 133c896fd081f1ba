package drain

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// ErrDraining is the context.Cause of a context that CancelOnDrain has cancelled, the error of a write to a WebSocket whose
// client was told to leave, and the error of a Listener's Accept after Stop.
var ErrDraining = errors.New("the drain has begun")

// Stream declares that the request of ctx does not end by itself, such as an event stream. The phase
// Requests then does not wait for it. The channel is closed when the phase Streams begins: the handler has
// to return then, and calls ended when it does. Call Stream before the header is written: then an HTTP/1.1 connection ends
// with the response, so that the client does not use it to come back to this process.
//
// On a server that was not given to Serve or Start, the channel is Draining(ctx), because Shutdown of such a server waits
// for streams too.
func Stream(ctx context.Context) (ending <-chan struct{}, ended func()) {
	c := connectionOf(ctx)
	if c == nil {
		return Draining(ctx), func() {}
	}
	c.streams.Add(1)
	c.of.changed.wake()
	return c.ending, sync.OnceFunc(func() {
		c.streams.Add(-1)
		c.of.changed.wake()
	})
}

// CancelOnDrain wraps a handler that does not end by itself and watches only the context of its request. The request
// counts as a stream (see Stream), and its context is cancelled when the streams have to end, with ErrDraining as the cause.
// Do not wrap handlers of ordinary requests, which the drain lets finish. CancelOnDrain has no effect where
// Draining(r.Context()) is nil.
func CancelOnDrain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ending, ended := Stream(r.Context())
		defer ended()
		ctx, cancel := context.WithCancelCause(r.Context())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			select {
			case <-ending:
				cancel(ErrDraining)
			case <-ctx.Done():
			}
		}()
		defer func() {
			cancel(nil)
			<-watched
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
