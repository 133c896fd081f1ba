package drain

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

func TestEveryFinishesItsWorkAndBeginsNoMore(t *testing.T) {
	d, _ := newQuiet()
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	times := 0
	d.Every("ticker", time.Nanosecond, func(ctx context.Context) error {
		times++
		begun <- struct{}{}
		<-finish
		return ctx.Err()
	})
	receive(t, begun)
	d.Drain()
	receive(t, d.Draining())
	d.On(Resources, "after the workers", func(context.Context) error {
		if times != 1 {
			t.Errorf("it began %d times", times)
		}
		return nil
	})
	close(finish)
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestEveryGoesOnUntilTheDrain(t *testing.T) {
	d, _ := newQuiet()
	begun := make(chan struct{})
	d.Every("ticker", time.Nanosecond, func(context.Context) error { begun <- struct{}{}; return nil })
	for range 3 {
		receive(t, begun)
	}
	d.Drain()
	for {
		select {
		case <-begun:
		case <-d.Done():
			return
		}
	}
}

func TestErrorOfWhatIsDoneOftenBeginsTheDrain(t *testing.T) {
	d, _ := newQuiet()
	d.Every("ticker", time.Nanosecond, func(context.Context) error { return errors.New("no more ink") })
	mustSay(t, d.Wait(), "worker ticker failed: no more ink")
}

func TestConsumerFinishesItsJobAndTakesNoMore(t *testing.T) {
	d, _ := newQuiet()
	queue := make(chan string, 2)
	queue <- "first"
	queue <- "second"
	begun, finish, done := make(chan string, 2), make(chan struct{}), make(chan string, 2)
	Consume(d, "consumer",
		func(ctx context.Context) (string, error) {
			if ctx.Err() != nil {
				t.Error("a job is asked for after the drain has begun")
			}
			return <-queue, nil
		},
		func(ctx context.Context, job string) error {
			begun <- job
			<-finish
			done <- job
			return ctx.Err()
		})
	receive(t, begun)
	d.Drain()
	receive(t, d.Draining())
	close(finish)
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if len(done) != 1 || len(queue) != 1 {
		t.Errorf("%d jobs are done, %d are left", len(done), len(queue))
	}
}

func TestConsumerThatWaitsIsToldToStop(t *testing.T) {
	d, _ := newQuiet()
	waiting := make(chan struct{})
	Consume(d, "consumer",
		func(ctx context.Context) (int, error) {
			close(waiting)
			<-ctx.Done()
			return 0, errors.New("interrupted")
		},
		func(context.Context, int) error { t.Error("there was no job"); return nil })
	receive(t, waiting)
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestConsumersErrorsBeginTheDrain(t *testing.T) {
	work := errors.New("no paper")
	for want, tt := range map[string]struct{ receive, work error }{
		"worker consumer failed: cannot receive a job: EOF": {io.EOF, nil},
		"worker consumer failed: no paper":                  {nil, work},
	} {
		d, _ := newQuiet()
		Consume(d, "consumer",
			func(context.Context) (int, error) { return 1, tt.receive },
			func(context.Context, int) error { return tt.work })
		mustSay(t, d.Wait(), want)
	}
}

func TestJobThatTakesTooLongIsToldSo(t *testing.T) {
	d, log := newQuiet(PhaseTimeout(Workers, time.Millisecond))
	begun, ended := make(chan struct{}), make(chan struct{})
	Consume(d, "consumer",
		func(ctx context.Context) (int, error) { return 1, ctx.Err() },
		func(ctx context.Context, _ int) error { close(begun); <-ctx.Done(); close(ended); return nil })
	receive(t, begun)
	d.Drain()
	mustSay(t, d.Wait(), "cannot end workers consumer: still running: the step's time limit of 1ms has expired")
	receive(t, ended)
	if log.Len() == 0 {
		t.Error("the log does not say so")
	}
}
