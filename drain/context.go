package drain

import "context"

type drainingKey struct{}

// Draining gives a channel that is closed when the drain begins of the program that a request or a worker is part of.
// Handlers that would not end by themselves, such as event streams, select on it and return. The request's context is
// not cancelled by the drain. For a context that is of no such program the channel is nil, which never gets ready.
func Draining(ctx context.Context) <-chan struct{} {
	draining, _ := ctx.Value(drainingKey{}).(<-chan struct{})
	return draining
}

// WithDraining is for servers of other kinds: Draining works with the context that it returns, which is cancelled when
// ctx is and not by the drain.
func (d *Drain) WithDraining(ctx context.Context) context.Context {
	return context.WithValue(ctx, drainingKey{}, d.Draining())
}
