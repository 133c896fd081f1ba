package load

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest latency that can be told from longer ones, in microseconds.
const longest = int64(60 * time.Second / time.Microsecond)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, 3) }

// Source is who answered, by the headers X-Generation and X-Pid; zero where the server does not say.
type Source struct{ Generation, Pid int }

// Answers is how often and when a source answered.
type Answers struct {
	Count       uint64
	First, Last time.Time
}

// Counts is what became of the exchanges of one kind.
type Counts struct {
	Requests   uint64 // exchanges, failed ones included; of streams: how often one was opened
	Reconnects uint64 // connections opened anew because the server had said that it closes the last one
	Events     uint64 // events of streams
	Failed     map[Failure]uint64
	latency    [During + 1]*hdrhistogram.Histogram
}

func (c *Counts) record(phase Phase, latency int64) {
	if c.latency[phase] == nil {
		c.latency[phase] = newHistogram()
	}
	c.latency[phase].RecordValue(min(latency, longest))
}

// Tally is what a load has counted: a copy that belongs to who got it.
type Tally struct {
	Kinds   map[Kind]*Counts
	Answers map[Source]Answers
	First   []Failed // the first failures, at most 20
	foreign bool
}

const firstFailures = 20

func newTally(foreign bool) Tally {
	return Tally{Kinds: map[Kind]*Counts{}, Answers: map[Source]Answers{}, foreign: foreign}
}

func (t *Tally) counts(kind Kind) *Counts {
	counts, ok := t.Kinds[kind]
	if !ok {
		counts = &Counts{Failed: map[Failure]uint64{}}
		t.Kinds[kind] = counts
	}
	return counts
}

func (t *Tally) fail(kind Kind, now time.Time, err error) Failed {
	failed := Failed{kind, classify(err), now, err, connectionOf(err)}
	t.counts(kind).Failed[failed.Failure]++
	if len(t.First) < firstFailures && !t.excused(failed.Failure) {
		t.First = append(t.First, failed)
	}
	return failed
}

// answered counts an answer, and reports whether it is the first one of its source.
func (t *Tally) answered(source Source, now time.Time) bool {
	answers, known := t.Answers[source]
	if !known {
		answers.First = now
	}
	answers.Count++
	answers.Last = now
	t.Answers[source] = answers
	return !known
}

func (t *Tally) clone() Tally {
	copied := newTally(t.foreign)
	for kind, counts := range t.Kinds {
		c := *counts
		c.Failed = maps.Clone(counts.Failed)
		for phase, latency := range counts.latency {
			if latency != nil {
				c.latency[phase] = latency.Clone()
			}
		}
		copied.Kinds[kind] = &c
	}
	copied.Answers = maps.Clone(t.Answers)
	copied.First = append(copied.First, t.First...)
	return copied
}

func (t Tally) excused(failure Failure) bool { return t.foreign && failure == IdleClosed }

// Requests returns the number of exchanges of the given kinds; of all when none is given.
func (t Tally) Requests(kinds ...Kind) (sum uint64) {
	for _, counts := range t.of(kinds) {
		sum += counts.Requests
	}
	return sum
}

// Events returns the number of events that streams have brought.
func (t Tally) Events() (sum uint64) {
	for _, counts := range t.Kinds {
		sum += counts.Events
	}
	return sum
}

// Failures returns the number of failures of the given kinds; of all when none is given. Connections that a foreign server
// closed while they were idle are not among them: see IdleClosed.
func (t Tally) Failures(kinds ...Kind) (sum uint64) {
	for failure, count := range t.ByFailure(kinds...) {
		if !t.excused(failure) {
			sum += count
		}
	}
	return sum
}

// IdleClosed returns how many requests met a connection that the server had closed while it was idle.
func (t Tally) IdleClosed() uint64 { return t.ByFailure()[IdleClosed] }

// ByFailure returns the number of each failure for the given kinds; for all when none is given.
func (t Tally) ByFailure(kinds ...Kind) map[Failure]uint64 {
	sums := map[Failure]uint64{}
	for _, counts := range t.of(kinds) {
		for failure, count := range counts.Failed {
			sums[failure] += count
		}
	}
	return sums
}

// Latency returns the latencies, in microseconds, of the successful exchanges of the given kinds; of the quick ones (all but
// Slow and Stream) when none is given.
func (t Tally) Latency(phase Phase, kinds ...Kind) *hdrhistogram.Histogram {
	sum := newHistogram()
	for kind, counts := range t.of(kinds) {
		if counts.latency[phase] != nil && (len(kinds) > 0 || kind.quick()) {
			sum.Merge(counts.latency[phase])
		}
	}
	return sum
}

func (t Tally) of(kinds []Kind) map[Kind]*Counts {
	if len(kinds) == 0 {
		return t.Kinds
	}
	some := map[Kind]*Counts{}
	for _, kind := range kinds {
		if counts, ok := t.Kinds[kind]; ok {
			some[kind] = counts
		}
	}
	return some
}

// String returns the requests and failures by kind, followed by the first failures, one a line.
func (t Tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d failed", t.Requests(), t.Failures())
	if events := t.Events(); events > 0 {
		fmt.Fprintf(&b, ", %d events", events)
	}
	for _, kind := range Kinds() {
		if counts, ok := t.Kinds[kind]; ok {
			fmt.Fprintf(&b, "\n  %s: %d%s", kind, counts.Requests, describe(counts.Failed))
		}
	}
	for _, failed := range t.First {
		fmt.Fprintf(&b, "\n    %s", failed)
	}
	return b.String()
}

func describe(byFailure map[Failure]uint64) string {
	var b strings.Builder
	for _, failure := range Failures() {
		if count := byFailure[failure]; count > 0 {
			fmt.Fprintf(&b, ", %d %s", count, failure)
		}
	}
	return b.String()
}
