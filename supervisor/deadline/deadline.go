// Package deadline has timers of which nothing is left when they are stopped. Go leaves a stopped timer in its heap, and wakes up
// when its time has come (timer.stop in the runtime's time.go): a program with nothing to do is to sleep.
package deadline

import (
	"context"
	"time"
)

// soon is when the runtime looks at its timers once more, and finds the one that is stopped.
const soon = time.Millisecond

// Stop stops a timer of time.AfterFunc, and reports whether it did so before the timer had expired.
func Stop(t *time.Timer) bool {
	if !t.Stop() {
		return false
	}
	t.Reset(soon)
	return t.Stop()
}

// Context is done after d, with [context.DeadlineExceeded] as its cause. Err says that it was canceled. The caller has to call
// cancel.
func Context(parent context.Context, d time.Duration) (ctx context.Context, cancel context.CancelFunc) {
	ctx, end := context.WithCancelCause(parent)
	t := time.AfterFunc(d, func() { end(context.DeadlineExceeded) })
	return ctx, func() {
		Stop(t)
		end(nil)
	}
}
