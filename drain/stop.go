package drain

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// stop turns signals and the caller's context into two moments.
type stop struct {
	begin context.Context // done when the drain has to begin
	now   context.Context // done when the drain has to end, for a cause

	start   context.CancelFunc
	cut     context.CancelCauseFunc
	signals chan os.Signal
	closed  chan struct{}
	ended   chan struct{}
}

// watch handles the process's signals until close.
func watch(o options) *stop {
	s := &stop{signals: make(chan os.Signal, 2), closed: make(chan struct{}), ended: make(chan struct{})}
	s.begin, s.start = context.WithCancel(o.ctx)
	s.now, s.cut = context.WithCancelCause(context.Background())
	if len(o.signals) > 0 {
		signal.Notify(s.signals, append([]os.Signal{syscall.SIGQUIT}, o.signals...)...)
	}
	go s.run(o.signals)
	return s
}

// run counts signals, not beginnings: the caller's context may have ended by the very signal that comes here too.
func (s *stop) run(begin []os.Signal) {
	defer close(s.ended)
	for first := true; ; first = false {
		select {
		case sig := <-s.signals:
			if !first {
				s.cut(fmt.Errorf("a second signal came: %v", sig))
			} else if !slices.Contains(begin, sig) {
				s.cut(fmt.Errorf("a signal came that ends at once: %v", sig))
			}
			s.start()
		case <-s.closed:
			return
		}
	}
}

func (s *stop) close() {
	signal.Stop(s.signals)
	close(s.closed)
	<-s.ended
	s.start()
	s.cut(nil)
}
