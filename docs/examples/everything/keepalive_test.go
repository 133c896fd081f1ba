//go:build linux

package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/test/harness"
)

// keepAlive is 200 clients with a connection each, which they keep. Half of them think for up to 4 ms between two POSTs,
// the other half for 200 to 800 ms.
type keepAlive struct{ hasty, thoughtful *load.Load }

const keepers = 100 // of each kind

func startKeepAlive(t *testing.T, addr string) keepAlive {
	t.Helper()
	clients := map[load.Kind]int{load.KeepAlivePost: keepers}
	return keepAlive{
		hasty:      startLoad(t, load.Config{Addr: addr, Clients: clients, ThinkMax: 4 * time.Millisecond}),
		thoughtful: startLoad(t, load.Config{Addr: addr, Clients: clients, ThinkMin: 200 * time.Millisecond, ThinkMax: 800 * time.Millisecond}),
	}
}

func startLoad(t *testing.T, config load.Config) *load.Load {
	t.Helper()
	config.Timeout = patience
	l, err := load.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// settle lets the clients go on for a request each, on the average.
func (k keepAlive) settle(t *testing.T) {
	t.Helper()
	for _, l := range []*load.Load{k.hasty, k.thoughtful} {
		awaitRequests(t, l, l.Snapshot().Requests()+keepers)
	}
}

func (k keepAlive) failures() uint64 {
	hasty, thoughtful := k.hasty.Snapshot(), k.thoughtful.Snapshot()
	return hasty.Failures() + thoughtful.Failures()
}

func awaitRequests(t *testing.T, l *load.Load, n uint64) {
	t.Helper()
	harness.Until(t, fmt.Sprintf("the clients have got %d answers", n), func() bool { return l.Snapshot().Requests() >= n })
}

// figures are what became of a load.
type figures struct {
	requests   uint64
	reconnects uint64 // because the server has asked to leave
	failed     uint64
	failures   map[load.Failure]uint64
	first      []load.Failed
}

func (k keepAlive) stop() figures {
	f := figures{failures: map[load.Failure]uint64{}}
	f.add(k.hasty.Stop())
	f.add(k.thoughtful.Stop())
	return f
}

func (f *figures) add(tally load.Tally) {
	f.requests += tally.Requests()
	f.reconnects += tally.Kinds[load.KeepAlivePost].Reconnects
	f.failed += tally.Failures()
	for failure, n := range tally.ByFailure() {
		f.failures[failure] += n
	}
	f.first = append(f.first, tally.First...)
}

func (f figures) String() string {
	if f.failed == 0 {
		return fmt.Sprintf("%d requests, none failed", f.requests)
	}
	return fmt.Sprintf("%d requests, %d failed %v", f.requests, f.failed, f.failures)
}
