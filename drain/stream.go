package drain

import (
	"context"
	"errors"
	"net/http"
)

// ErrDraining is the context.Cause of what Cancel ended.
var ErrDraining = errors.New("the drain has begun")

// Cancel is for routes whose handlers would not end by themselves and heed nothing but the context of their requests:
// it is cancelled when the drain begins. All other routes are finished. Where Draining(r.Context()) is nil, Cancel does
// nothing.
func Cancel(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		draining := Draining(r.Context())
		ctx, cancel := context.WithCancelCause(r.Context())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			select {
			case <-draining:
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
