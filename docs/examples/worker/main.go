// Worker is a program without a server: a queue consumer, a ticker, and other background work. When the program is told to
// stop, it finishes the jobs that have begun, and begins no new ones.
//
//	go run ./worker                                             # alone; Ctrl-C ends it
//	go build -o app ./worker
//	grace run --ready notify --listen unix:///tmp/worker.sock -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
//
// The socket is not used. It is there because grace replaces an app only if it holds or captures a socket of it.
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
		slog.Error("the worker ended with an error", "error", err)
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

// mail is cancelled only when the drain's time is over.
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

// keepCache has no work that must be finished, so it only watches its context.
func keepCache(ctx context.Context) error {
	<-ctx.Done()
	slog.Info("cache written")
	return nil
}

// queue stands for a queue that other programs fill.
type queue struct{ taken atomic.Int64 }

// receive waits for a job until ctx is cancelled, when the drain begins.
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
