package compare

import "github.com/HdrHistogram/hdrhistogram-go"

// result is what one task has measured.
type result struct {
	task
	counted
	Failure string   // why the task did not come to its end
	Said    []string // how requests for upgrades failed

	Asked, Served  int       // upgrades, and those whose version was seen to serve
	Times, Bare    []float64 // ms to the first answer: of the new version, of a server without a tool
	Calm, Upgrades latencies
	Left           int // processes that were replaced and had not ended at the end

	CPU         float64 // of the supervisor for an upgrade, ms; 0 where no process stays
	Memory      float64 // MB
	Descriptors [2]int  // before and after

	NewServes bool // the last version that was asked for
	OldServes bool // beside a bad version: the one before it; of one that hangs: it is still there
	Recovers  bool // a good version serves after it
}

// latencies are in ms.
type latencies struct{ P50, P99, Max float64 }

func latenciesOf(h *hdrhistogram.Histogram) latencies {
	at := func(percent float64) float64 { return float64(h.ValueAtQuantile(percent)) / 1000 }
	return latencies{at(50), at(99), at(100)}
}

// use is of the same process before and after: one that replaces itself cannot be compared with the one before.
func (r *result) use(before, after usage, upgrades int) {
	if after.pid == 0 {
		return
	}
	r.Memory, r.Descriptors = after.memory, [2]int{before.descriptors, after.descriptors}
	if before.pid == after.pid {
		r.CPU = milliseconds(after.cpu-before.cpu) / float64(upgrades)
	}
}

// lostEach is for one upgrade.
func (r result) lostEach() float64 { return float64(r.lost()) / float64(max(1, r.Asked)) }

// ratio is 0 where one of both was not measured.
func ratio(during, calm float64) float64 {
	if calm == 0 {
		return 0
	}
	return during / calm
}
