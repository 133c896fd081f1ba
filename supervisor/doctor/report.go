package doctor

import "time"

// State says how much of something works.
type State string

// The states, best first.
const (
	OK      State = "ok"
	Limited State = "limited"
	Missing State = "missing"
)

// Finding is what became of one mechanism.
type Finding struct {
	Mechanism string `json:"mechanism"`
	State     State  `json:"state"`
	Means     string `json:"means"`        // what was seen, and what follows
	Do        string `json:"do,omitempty"` // what would make it better

	serves feature
}

// feature is what does not work without a mechanism.
type feature int

const (
	comfort   feature = iota // nothing
	holding                  // grace run, in whatever way
	capturing                // grace run without --listen
)

// Report is what works.
type Report struct {
	// Held is about sockets that grace holds for the app (--listen), and all that
	// any app needs; Captured about those that the app binds itself.
	Held     State     `json:"held"`
	Captured State     `json:"captured"`
	Findings []Finding `json:"findings"`
}

// Options are what matters here of the flags of grace run.
type Options struct {
	User, Group              string
	DrainDelay, DrainTimeout time.Duration
	// RunTestApp is the command line by which this program runs [RunTestApp], its
	// own name first.
	TestApp []string
}

func newReport(findings []Finding) Report {
	r := Report{Held: OK, Captured: OK, Findings: findings}
	for _, f := range findings {
		if f.serves == holding {
			r.Held = worse(r.Held, f.State)
		}
		if f.serves == capturing {
			r.Captured = worse(r.Captured, f.State)
		}
	}
	r.Captured = worse(r.Captured, r.Held)
	return r
}

func worse(a, b State) State {
	switch {
	case a == Missing || b == Missing:
		return Missing
	case a == Limited || b == Limited:
		return Limited
	}
	return OK
}
