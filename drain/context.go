package drain

import "context"

type drainingKey struct{}

// Draining returns a channel that is closed when the drain begins. ctx is the context of a request or of a worker of a
// Drain; for any other context the channel is nil, which blocks forever. A handler that does not end by itself, such as
// an event stream, selects on the channel and returns. The drain does not cancel the request's context.
func Draining(ctx context.Context) <-chan struct{} {
	draining, _ := ctx.Value(drainingKey{}).(<-chan struct{})
	return draining
}

// WithDraining returns a child of ctx for which Draining works. It is for other kinds of servers. The drain does not
// cancel it.
func (d *Drain) WithDraining(ctx context.Context) context.Context {
	return context.WithValue(ctx, drainingKey{}, d.Draining())
}
