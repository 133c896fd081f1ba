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

// Go runs background work, which the drain waits for. The context ends in the phase Workers, after the requests, which
// may have work to give still: a worker then takes no more, finishes what it has, and returns. Draining of the context
// tells it earlier, when the drain begins.
//
// An error of a worker begins the drain, and Wait returns it. That its context was cancelled is none. Workers that do
// not end in time are named in the log and in the error.
func (d *Drain) Go(name string, work func(ctx context.Context) error) {
	if !d.workers.start(name) {
		d.tooLate(name)
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

// Every does work in the background, once in an interval, until the drain begins. Work that has begun is finished: its
// context ends when the time of the phase Workers is over. If work takes longer than the interval, the next begins at
// once. An error begins the drain, as one of Go does.
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

// Consume takes jobs from a queue in the background, until the drain begins, and works on one at a time; call it
// several times for several at a time. The context of receive ends when the drain begins, which nothing new is taken in
// then. A job that was taken is finished: the context of work ends when the time of the phase Workers is over.
//
// An error of receive or work begins the drain, as one of Go does. An error that receive returns after its context has
// ended is none. So io.EOF may be what ends a queue, if the program is to end with it.
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
		if err := work(d.workers.late, job); err != nil {
			return err
		}
	}
	return nil
}

// workers knows the names of those that run.
type workers struct {
	ctx     context.Context // ends when the workers have to end
	cancel  context.CancelFunc
	late    context.Context // ends when their time is over
	tooLate context.CancelFunc

	mu      sync.Mutex
	running map[string]int
	over    bool
	ended   wakeup
}

func newWorkers(parent context.Context) *workers {
	w := &workers{running: map[string]int{}, ended: newWakeup()}
	w.late, w.tooLate = context.WithCancel(parent)
	w.ctx, w.cancel = context.WithCancel(w.late)
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

// finish tells the workers to end, waits for them, and returns the names of those that go on running. A worker may start
// others until all have ended.
func (w *workers) finish(ctx context.Context) (running string) {
	w.cancel()
	defer w.tooLate()
	for ctx.Err() == nil && !w.close() {
		select {
		case <-w.ended:
		case <-ctx.Done():
		}
	}
	return w.abandon()
}

// close tells whether all have ended. If so, none can start any more.
func (w *workers) close() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = len(w.running) == 0
	return w.over
}

// abandon returns the names of those that run, and lets none start any more.
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
