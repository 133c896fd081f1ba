package drain

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// ErrDraining is the context.Cause of what CancelOnDrain ended, what a message comes to on a WebSocket whose client was told
// to leave, and the last that a Listener's Accept says.
var ErrDraining = errors.New("the drain has begun")

// Stream declares that the request that ctx belongs to does not end by itself, as an event stream does not. The phase
// Requests does not wait for it any more. The channel is closed when the phase Streams begins, in which the handler has
// to return. Call ended when it does. Over HTTP/1.1 the connection ends with the response, so that the client does not
// come back to this process; for that Stream has to be called before the header is written.
//
// On a server that is not Serve's the channel is Draining(ctx), since such a server's Shutdown waits for streams too.
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

// CancelOnDrain is for routes whose handlers would not end by themselves and heed nothing but the context of their requests:
// they are streams (see Stream), and the context is cancelled when they have to end. All other routes are finished.
// Where Draining(r.Context()) is nil, CancelOnDrain does nothing.
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
