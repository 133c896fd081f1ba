package demo

import (
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// record is what a demo has seen until now: plain data, drawn by the views and the summary.
type record struct {
	options
	elapsed    time.Duration
	generation int // that serves
	upgrades   []*upgrade
	moments    []moment
	width      int // of the terminal, in columns
	columns    int // how many moments the duration is divided into
	tally      load.Tally
	complaints []string // errors in grace's log
	paint      palette
	beside     beside
}

// upgrade is one replacement; its times count from the HUP, and are zero until it got so far.
type upgrade struct {
	began    time.Duration // since the load began
	replaced int           // the generation that was
	by       int           // the one that came, as soon as it is ready
	answered time.Duration // the first response of the new one
	gone     time.Duration // the end of the old one
	failed   string        // why it failed
}

func (u *upgrade) answeredOrFailed() bool { return u.answered > 0 || u.failed != "" }
func (u *upgrade) over() bool             { return u.answered > 0 && u.gone > 0 || u.failed != "" }

// moment is one column of the picture: latencies in milliseconds, NaN where nothing was answered.
type moment struct{ median, slowest float64 }

func newRecord(o options) *record {
	return &record{options: o, width: fullWidth, columns: pictureColumns}
}

// fullWidth is what the demo has room for everything in.
const fullWidth = 80

// fit makes all lines fit a terminal of so many columns.
func (r *record) fit(width int) {
	r.width = min(width, fullWidth)
	r.columns = min(pictureColumns, max(leastColumns, r.width-labelColumns))
}

// interval is the time between two upgrades.
func (r *record) interval() time.Duration { return r.duration / time.Duration(r.options.upgrades+1) }

// column is the time that a column of the picture stands for.
func (r *record) column() time.Duration { return r.duration / time.Duration(r.columns) }

// upgrading says whether an upgrade is under way.
func (r *record) upgrading() bool {
	for _, u := range r.upgrades {
		if !u.over() {
			return true
		}
	}
	return false
}

// due says whether it is time for the next upgrade. One that waits for its first answer delays the next: grace would make one
// of two that come so close.
func (r *record) due() bool {
	n := len(r.upgrades)
	if n == r.options.upgrades || n > 0 && !r.upgrades[n-1].answeredOrFailed() {
		return false
	}
	return r.elapsed >= r.interval()*time.Duration(n+1)
}

// complete says whether the demo has shown all it was asked for.
func (r *record) complete() bool {
	return r.elapsed >= r.duration && len(r.upgrades) == r.options.upgrades && !r.upgrading()
}

func (r *record) failed() bool {
	for _, u := range r.upgrades {
		if u.failed != "" {
			return true
		}
	}
	return r.failures() > 0
}

func (r *record) requests() uint64 { return r.tally.Requests() + r.beside.tally.Requests() }
func (r *record) failures() uint64 { return r.tally.Failures() + r.beside.tally.Failures() }
