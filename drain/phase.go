package drain

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Phase is one part of a drain. The phases follow one another in the order of these constants.
type Phase int

const (
	Accepting Phase = iota // listeners are closed
	Requests               // requests are finished
	Streams                // streams and hijacked connections are ended
	Workers                // workers take no new work and finish what they have
	Resources              // resources are closed, such as databases
	phases
)

func (p Phase) String() string {
	return [phases]string{"accepting", "requests", "streams", "workers", "resources"}[p]
}

// step is one thing that a phase ends. Its run returns soon after the context is done.
type step struct {
	name string
	run  func(ctx context.Context) error
}

// abandonable is a step whose function may hang: then its goroutine is left behind. It is not started if no time is left.
func abandonable(name string, f func(ctx context.Context) error) step {
	return step{name, func(ctx context.Context) error {
		if ctx.Err() != nil {
			return fmt.Errorf("not started: %w", context.Cause(ctx))
		}
		ended := make(chan error, 1)
		go func() { ended <- f(ctx) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("still running: %w", context.Cause(ctx))
		}
	}}
}

// runPhase returns when each step of the phase has ended or has run out of time.
func (d *Drain) runPhase(ctx context.Context, p Phase) {
	steps := d.take(p)
	ctx, cancel := d.phaseContext(ctx, p)
	defer cancel()
	if p == Resources {
		d.runInReverse(ctx, steps)
		return
	}
	if p == Streams {
		close(d.ending)
		steps = append(steps, d.ends()...)
	}
	var running sync.WaitGroup
	for _, s := range steps {
		running.Go(func() { d.runStep(ctx, p, s) })
	}
	if p == Workers {
		d.endWorkers(ctx)
	}
	running.Wait()
}

func (d *Drain) endWorkers(ctx context.Context) {
	running := d.workers.finish(ctx)
	if running == "" {
		return
	}
	d.log.Warn("workers did not end in time", "workers", running, "error", context.Cause(ctx))
	d.addTimedOut("workers " + running)
	d.fail(fmt.Errorf("cannot end workers %s: still running: %w", running, context.Cause(ctx)))
}

func (d *Drain) addTimedOut(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timedOut = append(d.timedOut, name)
}

// runInReverse gives each step an even share of the remaining time, so that a step that hangs does not use up the time of
// the others.
func (d *Drain) runInReverse(ctx context.Context, steps []step) {
	for n := len(steps); n > 0; n-- {
		share := left(ctx) / time.Duration(n)
		ctx, cancel := withLimit(ctx, share)
		d.runStep(ctx, Resources, steps[n-1])
		cancel()
	}
}

func (d *Drain) runStep(ctx context.Context, p Phase, s step) {
	err := s.run(ctx)
	if err == nil {
		return
	}
	if ctx.Err() != nil {
		d.log.Warn("step did not end in time", "phase", p.String(), "step", s.name, "error", err)
		d.addTimedOut(s.name)
	}
	if p == Requests || p == Streams {
		d.overdue.Store(true)
	}
	d.fail(fmt.Errorf("cannot end %s: %w", s.name, err))
}

// phaseContext reserves a tenth of the whole time for each later phase that has something to do.
func (d *Drain) phaseContext(ctx context.Context, p Phase) (context.Context, context.CancelFunc) {
	limit := left(ctx)
	for later := p + 1; later < phases; later++ {
		if d.busy(later) {
			limit -= d.o.timeout / 10
		}
	}
	if own, ok := d.o.limits[p]; ok {
		limit = min(limit, own)
	}
	return withLimit(ctx, limit)
}

func left(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline)
}

// withLimit keeps the cause of ctx unless limit is shorter than the time that ctx has left.
func withLimit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit >= left(ctx) {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the step's time limit of %v has expired", limit.Round(time.Millisecond)))
}
