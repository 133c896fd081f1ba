//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// client does one thing after the other, and never does again what has failed.
type client interface {
	exchange(ctx context.Context) error
	close()
}

// crowd is clients of one kind, and what became of what they did.
type crowd struct {
	ctx     context.Context // ends with the test
	name    string
	think   time.Duration // at most, between two exchanges
	stop    chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	done     int
	failed   int
	failures map[string]int
	changed  chan struct{} // has an element if something was counted since the last receive
}

func newCrowd(t *testing.T, name string, think time.Duration) *crowd {
	return &crowd{
		ctx:      t.Context(),
		name:     name,
		think:    think,
		stop:     make(chan struct{}),
		failures: map[string]int{},
		changed:  make(chan struct{}, 1),
	}
}

func (c *crowd) add(member client) {
	c.running.Go(func() {
		defer member.close()
		for c.goOn() {
			c.count(member.exchange(c.ctx))
		}
	})
}

func (c *crowd) goOn() bool {
	select {
	case <-c.stop:
		return false
	case <-c.ctx.Done():
		return false
	case <-time.After(rand.N(c.think)):
		return true
	}
}

func (c *crowd) count(err error) {
	c.note(func() {
		c.done++
		if err != nil {
			c.failed++
			c.failures[err.Error()]++
		}
	})
}

// note is for what a client counts and await looks at.
func (c *crowd) note(what func()) {
	c.mu.Lock()
	what()
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *crowd) await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for timeout := time.After(patience); ; {
		c.mu.Lock()
		ok := reached()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.changed:
		case <-timeout:
			t.Fatalf("%s: it does not come to this: %s; failures: %v", c.name, what, c.failures)
		}
	}
}

// end lets each client finish what it is at, and wants nothing to have failed.
func (c *crowd) end(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.running.Wait()
	t.Logf("%s: %d done, %d failed", c.name, c.done, c.failed)
	if c.done == 0 {
		t.Errorf("%s: nothing was done", c.name)
	}
	for failure, n := range c.failures {
		t.Errorf("%s: %d times: %s", c.name, n, failure)
	}
}
