package main

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// replacement is a running server and one way to replace it.
type replacement interface {
	// serves is the address that gets the load.
	serves() string
	// replace returns how long it took from the decision to the first response of the new process. It returns when the old one
	// has ended.
	replace() time.Duration
	stop()
}

// entry is one of those that are compared.
type entry struct {
	name  string
	aim   float64 // at most so many times the ideal overlap; 0 for none
	begin func() replacement
}

// competitor is an entry that runs.
type competitor struct {
	entry
	replacement
}

// contest is how the competitors are compared: each round has all of them, in an order of its own, so that none always
// follows the same other one.
type contest struct {
	title   string
	rounds  int
	pause   time.Duration // before each turn
	repeats int           // replacements in one turn, without a pause
	loaded  bool          // by a few clients
	summed  bool          // in the table of aims
}

// shortLinger is longer than the pause of the clients, and keeps the turns short.
const shortLinger = "100ms"

// unsettled has nothing to do with the first response: it ends the old generation of a captured app at once, as with the others.
var unsettled = []string{"--settle", "0s"}

const spaced = 100 * time.Millisecond

var quickContests = []contest{
	{"quick to start, spaced, a few clients", 40, spaced, 1, true, true},
	{"quick to start, spaced, no clients", 20, spaced, 1, false, false},
	{"quick to start, back to back, a few clients", 5, spaced, 8, true, false},
}

var slowContests = []contest{
	{"400 ms to start, spaced, a few clients", 5, spaced, 1, true, false},
}

func (b bench) start() {
	b.contest(quickContests, "-linger", shortLinger)
	b.contest(slowContests, "-linger", shortLinger, "-delay", "400ms")
	b.shim()
}

// contest compares the ways to replace one app.
func (b bench) contest(contests []contest, app ...string) {
	var all []competitor
	defer func() { stopAll(all) }()
	for _, e := range b.entries(app) {
		all = append(all, competitor{e, e.begin()})
	}
	for _, c := range contests {
		c.print(c.measure(all), all, b.figures)
	}
}

func stopAll(all []competitor) {
	var err error
	for _, c := range all {
		err = errors.Join(err, attempt(c.stop))
	}
	check(err)
}

// entries has the ideal overlap first: others are compared with it, and the bare start gets the load on its address.
func (b bench) entries(app []string) []entry {
	var best *ideal
	silent := append([]string{"-silent"}, app...)
	notify := []string{"--ready", "notify"}
	return []entry{
		{"ideal overlap, played by the bench", 0, func() replacement { best = b.startIdeal(app); return best }},
		{"bare start, nothing replaced", 0, func() replacement { return &bareStart{b, app, best.serves()} }},
		{"smallest supervisor: the ideal overlap on SIGHUP, in a process of its own", 0, func() replacement { return b.startSmallest(app) }},
		{"tableflip", 0, func() replacement { return b.startFlipped(app) }},
		{"grace, held, --ready auto", 1.15, func() replacement { return &upgraded{b.supervise(nil, silent...)} }},
		{"grace, held, --ready notify", 1.05, func() replacement { return &upgraded{b.supervise(notify, app...)} }},
		{"grace, captured, --ready auto", 1.3, func() replacement { return &upgraded{b.superviseCaptured(unsettled, silent...)} }},
		{"grace, captured, --ready notify", 1.3, func() replacement {
			return &upgraded{b.superviseCaptured(slices.Concat(unsettled, notify), app...)}
		}},
	}
}

// result is what was measured of one competitor.
type result struct {
	took             series
	requests, failed int
}

func (c contest) measure(all []competitor) []result {
	results := make([]result, len(all))
	for range c.rounds {
		for _, n := range rand.Perm(len(all)) {
			c.turn(all[n], &results[n])
		}
	}
	return results
}

func (c contest) turn(of competitor, r *result) {
	if c.loaded {
		clients := startTraffic(of.serves())
		defer func() {
			requests, failed := clients.stop()
			r.requests += requests
			r.failed += failed
		}()
	}
	time.Sleep(c.pause)
	for range c.repeats {
		r.took.addTime(of.replace())
	}
}

func (c contest) print(results []result, all []competitor, figures *summary) {
	t := newTable("From the decision to the first response of the new process, in ms: median (min..max). "+c.title,
		"\ttime\t\tratio to the ideal\t\tat most\trequests\tfailed")
	defer t.end()
	for n, r := range results {
		of, ratio := all[n], r.took.over(results[0].took)
		t.line("%s\t%v\t%v\t%s\t%d\t%d", of.name, r.took, ratio, orNone(of.aim), r.requests, r.failed)
		if c.summed && of.aim > 0 {
			figures.add("first response, "+of.name+", beside the ideal overlap", of.aim, ratio.median(), "x")
		}
	}
}
