package drain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Go runs work in a goroutine, and the drain waits for it. The context is cancelled in the phase Workers, after the
// requests, because they may still create work. A worker then takes no new work, finishes what it has, and returns.
// Draining(ctx) tells it earlier, when the drain begins.
//
// If work returns an error, the drain begins, and Wait returns that error; context.Canceled after the context was
// cancelled does not count as an error. Workers that do not end in time are named in the log and in the error of Wait.
func (d *Drain) Go(name string, work func(ctx context.Context) error) {
	if !d.workers.start(name) {
		d.logTooLate(name)
		return
	}
	go func() {
		defer d.workers.end(name)
		err := work(d.workers.ctx)
		if err != nil && !(d.workers.ctx.Err() != nil && errors.Is(err, context.Canceled)) {
			d.fail(fmt.Errorf("worker %s failed: %w", name, err))
		}
	}()
}

// Every calls work in a goroutine once per interval, until the drain begins. A call that is in progress then may finish: its
// context is cancelled only when the time of the phase Workers is over. If a call takes longer than the interval, the next one
// follows at once. An error of work begins the drain, as with Go.
func (d *Drain) Every(name string, interval time.Duration, work func(ctx context.Context) error) {
	ticker := time.NewTicker(interval)
	tick := func(ctx context.Context) (time.Time, error) {
		select {
		case now := <-ticker.C:
			return now, nil
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
	d.Go(name, func(context.Context) error {
		defer ticker.Stop()
		return consume(d, tick, func(ctx context.Context, _ time.Time) error { return work(ctx) })
	})
}

// Consume takes jobs from a queue in a goroutine, one at a time, until the drain begins. Call it
// several times to work on several jobs at a time. The context of receive is cancelled when the drain begins, so that no
// new job is taken. A job that was taken is finished: the context of work is cancelled only when the time of the phase
// Workers is over.
//
// An error of receive or work begins the drain, as with Go. An error that receive returns after its context was
// cancelled does not count. So receive may return io.EOF at the end of a queue, if the program should end then.
func Consume[Job any](d *Drain, name string, receive func(ctx context.Context) (Job, error), work func(ctx context.Context, job Job) error) {
	d.Go(name, func(context.Context) error { return consume(d, receive, work) })
}

func consume[Job any](d *Drain, receive func(context.Context) (Job, error), work func(context.Context, Job) error) error {
	taking, stop := context.WithCancel(d.workers.ctx)
	defer stop()
	defer context.AfterFunc(d.stop.begin, stop)()
	for d.stop.begin.Err() == nil {
		job, err := receive(taking)
		if err != nil && d.stop.begin.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot receive a job: %w", err)
		}
		if err := work(d.workers.jobCtx, job); err != nil {
			return err
		}
	}
	return nil
}

// workers has the names of the workers that run.
type workers struct {
	ctx        context.Context // done when the workers have to end
	cancel     context.CancelFunc
	jobCtx     context.Context // done when their time is over
	cancelJobs context.CancelFunc

	mu      sync.Mutex
	running map[string]int
	over    bool
	ended   wakeup
}

func newWorkers(parent context.Context) *workers {
	w := &workers{running: map[string]int{}, ended: newWakeup()}
	w.jobCtx, w.cancelJobs = context.WithCancel(parent)
	w.ctx, w.cancel = context.WithCancel(w.jobCtx)
	return w
}

func (w *workers) start(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return false
	}
	w.running[name]++
	return true
}

func (w *workers) end(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[name]--; w.running[name] == 0 {
		delete(w.running, name)
	}
	w.ended.wake()
}

func (w *workers) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running) > 0
}

// finish cancels the workers' context, waits for them, and returns the names of those that are still running. A worker may
// start others until all have ended.
func (w *workers) finish(ctx context.Context) (running string) {
	w.cancel()
	defer w.cancelJobs()
	for ctx.Err() == nil && !w.close() {
		select {
		case <-w.ended:
		case <-ctx.Done():
		}
	}
	return w.abandon()
}

// close reports whether all have ended. If so, no more can start.
func (w *workers) close() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = len(w.running) == 0
	return w.over
}

// abandon returns the names of those that are still running. No more can start after it.
func (w *workers) abandon() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.running)) {
		if n := w.running[name]; n > 1 {
			name = fmt.Sprintf("%s (%d of them)", name, n)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
