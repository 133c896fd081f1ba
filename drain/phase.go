package drain

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Phase is one part of the end of a program. The phases come one after the other, in the order of these constants.
type Phase int

const (
	Accepting Phase = iota // nothing more is taken in: listeners are closed
	Requests               // what was taken in is finished
	Streams                // what does not end by itself is ended
	Workers                // background work takes no more, and finishes what it has
	Resources              // what all of them used is closed
	phases
)

func (p Phase) String() string {
	return [phases]string{"accepting", "requests", "streams", "workers", "resources"}[p]
}

// step is what a phase does for one thing. Its run returns soon after the context is done.
type step struct {
	name string
	run  func(ctx context.Context) error
}

// guarded is a step of a function that may hang. It is left behind then, and not begun when there is no time for it.
func guarded(name string, f func(ctx context.Context) error) step {
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

// runPhase returns when each step of the phase has ended or has lost its time.
func (d *Drain) runPhase(ctx context.Context, p Phase) {
	steps := d.take(p)
	ctx, cancel := d.limit(ctx, p)
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
	d.giveUp("workers " + running)
	d.fail(fmt.Errorf("cannot end workers %s: still running: %w", running, context.Cause(ctx)))
}

func (d *Drain) giveUp(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.late = append(d.late, name)
}

// runInReverse gives each step an even share of the time that is left, so that one that hangs leaves theirs to the
// others.
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
		d.giveUp(s.name)
	}
	if p == Requests || p == Streams {
		d.overdue.Store(true)
	}
	d.fail(fmt.Errorf("cannot end %s: %w", s.name, err))
}

// limit leaves a tenth of the whole time to each later phase that has something to do.
func (d *Drain) limit(ctx context.Context, p Phase) (context.Context, context.CancelFunc) {
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

// withLimit keeps the cause of ctx where the limit is no shorter than what ctx has.
func withLimit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit >= left(ctx) {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("its share of the timeout, %v, has expired", limit.Round(time.Millisecond)))
}
