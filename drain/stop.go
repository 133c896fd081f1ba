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

// stop turns signals and the caller's context into two moments.
type stop struct {
	begin context.Context // done when the drain has to begin, for a cause
	now   context.Context // done when the drain has to end, for a cause
	waits atomic.Bool     // somebody waits for the end of the drain

	start   context.CancelCauseFunc
	cut     context.CancelCauseFunc
	signals chan os.Signal
	closed  chan struct{}
	ended   chan struct{}
}

// repetition is the time in which the signal that began the drain may come again and is the same wish still: timeout of
// coreutils signals its command and then the process group that this is in (cleanup in src/timeout.c), and a Ctrl-C
// reaches a program both from the terminal and from a parent such as npm that passes it on.
const repetition = 500 * time.Millisecond

// watch handles the process's signals until close.
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

// run counts signals, not beginnings: the caller's context may have ended by the very signal that comes here too.
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
			case sig != first || time.Since(came) >= repetition:
				s.end(sig, fmt.Errorf("second signal: %w", received{sig}))
			}
			s.start(received{sig})
		case <-s.closed:
			return
		}
	}
}

// end cuts everything. A program that does not wait for the drain yet would not notice: it is in its start-up, which may
// hang. There the signal has its default action, which for SIGQUIT also shows where each goroutine is.
func (s *stop) end(sig os.Signal, cause error) {
	if number, ok := sig.(syscall.Signal); ok && !s.waits.Load() {
		signal.Reset(sig)
		_ = syscall.Kill(os.Getpid(), number)
	}
	s.cut(cause)
}

// received is the signal that something is done for.
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
