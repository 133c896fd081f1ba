// Worker is a program without a server: a queue's consumer, a ticker, and background work of another kind. A job that
// has begun when the program is told to end is finished, and nothing new is begun.
//
//	go run ./worker                                             # alone; Ctrl-C ends it
//	go build -o app ./worker
//	grace run --ready notify --listen unix:///tmp/worker.sock -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
//
// The socket is used by nobody: grace replaces only an app for which it holds one.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/drain"
)

var took = flag.Duration("job", 2*time.Second, "how long a job takes")

func main() {
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("pid", os.Getpid()))
	if err := run(); err != nil {
		slog.Error("the worker did not end well", "error", err)
		os.Exit(1)
	}
}

func run() error {
	d := drain.New(drain.Timeout(25 * time.Second)) // longer than any job
	q := &queue{}
	d.Close("queue", q) // after all that uses it
	drain.Consume(d, "mailer", q.receive, mail)
	d.Every("report", 10*time.Second, q.report)
	d.Go("cache", keepCache)
	return d.Wait()
}

// mail is not cancelled by the drain, but when the drain's time is over.
func mail(ctx context.Context, job int64) error {
	slog.Info("job begins", "job", job)
	select {
	case <-time.After(*took):
		slog.Info("job done", "job", job)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepCache has nothing that must be finished, so it heeds its context alone.
func keepCache(ctx context.Context) error {
	<-ctx.Done()
	slog.Info("cache written")
	return nil
}

// queue stands for one that others fill.
type queue struct{ taken atomic.Int64 }

// receive waits for a job until ctx ends, which it does when the drain begins.
func (q *queue) receive(ctx context.Context) (int64, error) {
	select {
	case <-time.After(10 * time.Millisecond):
		return q.taken.Add(1), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (q *queue) report(context.Context) error {
	slog.Info("report", "taken", q.taken.Load())
	return nil
}

func (q *queue) Close() error {
	slog.Info("queue closed", "taken", q.taken.Load())
	return nil
}
