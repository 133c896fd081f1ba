// Package load sends requests to a server from clients that never retry, and counts what became of every one of them.
//
// net/http's Transport repeats a request on a new connection when an idle one turns out to be closed, which hides exactly
// the losses that are looked for here. These clients speak over a net.Conn: what is lost stays lost, and is counted by kind.
package load

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Config says which clients to run against which server.
type Config struct {
	Network string          // tcp (the default), tcp4, tcp6, unix; udp, unixgram for Packet
	Addr    string          // host:port or a path; a name is resolved once, to one address
	Clients map[Kind]int    // how many clients of each kind
	Paths   map[Kind]string // the URL path of an HTTP kind, where it is not the default one

	// A client pauses for a random time between these two after each exchange.
	ThinkMin, ThinkMax time.Duration

	// Timeout bounds one exchange, and the silence between two events of a stream; a minute when zero.
	Timeout time.Duration

	// Foreign says that the server closes idle keep-alive connections without asking, as servers that know nothing of drain
	// do: IdleClosed is then counted, but not among the failures.
	Foreign bool

	// Lingers says that the server goes on reading for a while when it has closed its side of a connection, and drops what
	// it gets, as nginx does (lingering_close). A request that was on its way to an idle connection is acknowledged then,
	// and counts as IdleClosed too.
	Lingers bool

	// Looks says that a client looks before each request whether the server has closed the connection, and opens another one
	// then, as connection pools do. What fails all the same was on its way as the server closed.
	Looks bool

	// Away is how far away a client acts as if it were: so long a request takes to the server, and the end of a connection to the
	// client. With Looks, a client does not see an end that is younger than twice that.
	Away time.Duration

	// Answer is what every body has to be, where the server does not send back what is posted to it.
	Answer string

	// Ramp spreads the first requests of the clients over this time.
	Ramp time.Duration

	// From is the clients' own IP address on this machine; the kernel chooses it when empty. Each has its own ports.
	From string

	// Report is told of each failure that counts as one, in the goroutine of the client that has met it; nil: nobody is.
	Report func(Failed)
}

// Load is a running set of clients. Its methods may be called from any goroutine.
type Load struct {
	cfg     Config
	hard    context.Context // ends exchanges at once
	soft    context.Context // lets them finish
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu      sync.Mutex
	tally   Tally
	marks   uint64 // odd during an upgrade
	lap     *hdrhistogram.Histogram
	changed chan struct{} // closed and replaced when a source answers for the first time
}

// Phase says whether a request had to do with an upgrade.
type Phase int

const (
	Outside Phase = iota
	During
)

// Start begins to send requests. When ctx ends, open connections are closed and what they were doing is not counted.
// The caller ends the load by Stop.
func Start(ctx context.Context, cfg Config) (*Load, error) {
	cfg.Network = cmp.Or(cfg.Network, "tcp")
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	addr, err := resolve(cfg.Network, cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("cannot send load: %w", err)
	}
	cfg.Addr = addr

	// A dialer heeds the deadline of its context, and may find it over before the context does: that would count as a failure.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, cancel)
	l := &Load{
		cfg:     cfg,
		hard:    hard,
		tally:   newTally(cfg.Foreign),
		lap:     newHistogram(),
		changed: make(chan struct{}),
	}
	l.soft, l.stop = context.WithCancel(hard)
	for kind, count := range cfg.Clients {
		for range count {
			l.clients.Go(func() { l.run(kind) })
		}
	}
	return l, nil
}

// resolve makes one address of a host name: a dialer that tries several would be a client that retries.
func resolve(network, addr string) (string, error) {
	if !strings.HasPrefix(network, "tcp") {
		return addr, nil
	}
	one, err := net.ResolveTCPAddr(network, addr)
	if err != nil {
		return "", err
	}
	return one.String(), nil
}

// Stop lets every client finish the exchange it is in (streams are closed at once), and returns the final tally.
func (l *Load) Stop() Tally {
	l.stop()
	l.clients.Wait()
	return l.Snapshot()
}

// Mark tells the load that an upgrade begins or is over. A request counts as During when any part of an upgrade fell into it.
func (l *Load) Mark(phase Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.marks%2 != uint64(phase) {
		l.marks++
	}
}

// Snapshot returns a copy of what was counted until now.
func (l *Load) Snapshot() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally.clone()
}

// Lap returns the latencies, in microseconds, of the quick requests (neither slow ones nor streams) that ended since the
// last Lap. The caller owns the histogram.
func (l *Load) Lap() *hdrhistogram.Histogram {
	next := newHistogram()
	l.mu.Lock()
	defer l.mu.Unlock()
	lap := l.lap
	l.lap = next
	return lap
}

// Await waits until a source that matches has answered, and returns when it did so first. It fails when ctx ends before.
func (l *Load) Await(ctx context.Context, match func(Source) bool) (time.Time, error) {
	for {
		first, changed := l.firstAnswer(match)
		if !first.IsZero() {
			return first, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

func (l *Load) firstAnswer(match func(Source) bool) (time.Time, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for source, answers := range l.tally.Answers {
		if match(source) && (first.IsZero() || answers.First.Before(first)) {
			first = answers.First
		}
	}
	return first, l.changed
}

// start is the moment at which an exchange began, and the mark that was set then.
type start struct {
	at    time.Time
	marks uint64
}

func (l *Load) begin() start {
	l.mu.Lock()
	defer l.mu.Unlock()
	return start{time.Now(), l.marks}
}

// end counts one exchange.
func (l *Load) end(kind Kind, s start, source Source, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := l.tally.counts(kind)
	counts.Requests++
	if err == nil || source != (Source{}) {
		l.answered(source, now)
	}
	if err != nil {
		l.fail(kind, now, err)
		return
	}
	latency := max(1, now.Sub(s.at).Microseconds())
	counts.record(l.phaseSince(s), latency)
	if kind.quick() {
		l.lap.RecordValue(min(latency, longest))
	}
}

// answered counts an answer, be it a bad one, and wakes those who await its source. The caller holds the lock.
func (l *Load) answered(source Source, now time.Time) {
	if l.tally.answered(source, now) {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

func (l *Load) phaseSince(s start) Phase {
	if l.marks == s.marks {
		return Phase(l.marks % 2)
	}
	return During
}

// cut counts a failure of an exchange that was counted before, such as a stream that broke.
func (l *Load) cut(kind Kind, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(kind, time.Now(), err)
}

// fail counts a failure and tells of it. The caller holds the lock.
func (l *Load) fail(kind Kind, now time.Time, err error) {
	failed := l.tally.fail(kind, now, err)
	if l.cfg.Report != nil && !l.tally.excused(failed.Failure) {
		l.cfg.Report(failed)
	}
}

func (l *Load) reconnected(kind Kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.counts(kind).Reconnects++
}

func (l *Load) event(kind Kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.counts(kind).Events++
}

// afterFailure keeps a client of a dead server from turning into a busy loop.
const afterFailure = 10 * time.Millisecond

// pause waits for the think time, and reports whether to go on.
func (l *Load) pause(err error) bool {
	think := l.cfg.ThinkMin
	if spread := l.cfg.ThinkMax - l.cfg.ThinkMin; spread > 0 {
		think += rand.N(spread)
	}
	if err != nil {
		think = max(think, afterFailure)
	}
	return l.sleep(think)
}

// travel is the time between a client's look at its connection and the arrival of its request: the way there, and the way back
// of what it could have seen.
func (l *Load) travel() {
	if l.cfg.Away > 0 {
		time.Sleep(2 * l.cfg.Away)
	}
}

// ramp waits until a client begins.
func (l *Load) ramp() bool {
	if l.cfg.Ramp <= 0 {
		return true
	}
	return l.sleep(rand.N(l.cfg.Ramp))
}

// sleep reports whether to go on.
func (l *Load) sleep(d time.Duration) bool {
	if d <= 0 {
		return l.soft.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.soft.Done():
		return false
	}
}
