package drain

import "context"

// WithDraining is for servers of other kinds: Draining works with the context that it returns, which is cancelled when
// ctx is and not by the drain.
func (d *Drain) WithDraining(ctx context.Context) context.Context { return d.withDraining(ctx) }
