// Package deadline has timers of which nothing is left when they are stopped. Go leaves a stopped timer in its heap, and wakes up
// when its time has come (timer.stop in the runtime's time.go): a program with nothing to do is to sleep.
package deadline

import (
	"context"
	"time"
)

// soon is when the runtime looks at its timers once more, and finds those that are stopped.
const soon = time.Millisecond

// Forget is for timers of time.AfterFunc that are stopped. It wakes the program up once, so it is for when there is little to do.
func Forget(stopped ...*time.Timer) {
	for _, t := range stopped {
		t.Reset(soon)
		t.Stop()
	}
}

// Context is done after d, with [context.DeadlineExceeded] as its cause. Err says that it was canceled. The caller has to call
// cancel.
func Context(parent context.Context, d time.Duration) (ctx context.Context, cancel context.CancelFunc) {
	ctx, end := context.WithCancelCause(parent)
	t := time.AfterFunc(d, func() { end(context.DeadlineExceeded) })
	return ctx, func() {
		if t.Stop() {
			Forget(t)
		}
		end(nil)
	}
}
