package drain

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stop turns signals and the caller's context into two contexts: one ends when the drain begins, one when it is cut off.
type stop struct {
	begin context.Context // done when the drain has to begin, with the cause
	now   context.Context // done when the drain has to end at once, with the cause
	waits atomic.Bool     // the program has called Wait

	start   context.CancelCauseFunc
	cut     context.CancelCauseFunc
	signals chan os.Signal
	closed  chan struct{}
	ended   chan struct{}
}

// repeatWindow is the time in which the signal that began the drain counts as the same signal if it comes again: timeout of
// coreutils signals its command and then the process group of that command (cleanup in src/timeout.c), and a Ctrl-C
// reaches a program both from the terminal and from a parent that passes it on, such as npm.
const repeatWindow = 500 * time.Millisecond

// watch starts to handle the process's signals; close ends that.
func watch(o options) *stop {
	s := newStop(o.ctx)
	if len(o.signals) > 0 {
		signal.Notify(s.signals, append([]os.Signal{syscall.SIGQUIT}, o.signals...)...)
	}
	go s.run(o.signals)
	return s
}

func newStop(ctx context.Context) *stop {
	s := &stop{signals: make(chan os.Signal, 2), closed: make(chan struct{}), ended: make(chan struct{})}
	s.begin, s.start = context.WithCancelCause(ctx)
	s.now, s.cut = context.WithCancelCause(context.Background())
	return s
}

// run looks at signals alone, not at whether the drain has begun: the signal that comes here first may already have ended
// the caller's context.
func (s *stop) run(begin []os.Signal) {
	defer close(s.ended)
	var first os.Signal
	var came time.Time
	for {
		select {
		case sig := <-s.signals:
			switch {
			case first == nil && slices.Contains(begin, sig):
				first, came = sig, time.Now()
			case first == nil:
				s.end(sig, received{sig})
			case sig != first || time.Since(came) >= repeatWindow:
				s.end(sig, fmt.Errorf("second signal: %w", received{sig}))
			}
			s.start(received{sig})
		case <-s.closed:
			return
		}
	}
}

// end cuts everything off. A program that has not called Wait yet is still starting, may hang, and would not notice. So the
// signal then has its default action, which for SIGQUIT also prints the stack of each goroutine.
func (s *stop) end(sig os.Signal, cause error) {
	if number, ok := sig.(syscall.Signal); ok && !s.waits.Load() {
		signal.Reset(sig)
		_ = syscall.Kill(os.Getpid(), number)
	}
	s.cut(cause)
}

// received is a signal as the cause of a drain.
type received struct{ os.Signal }

func (r received) Error() string {
	if number, ok := r.Signal.(syscall.Signal); ok {
		return "received " + unix.SignalName(number)
	}
	return "received " + r.Signal.String()
}

func (s *stop) close() {
	signal.Stop(s.signals)
	close(s.closed)
	<-s.ended
	s.start(nil)
	s.cut(nil)
}
