package machine

import (
	"slices"
	"time"
)

// Outcome is how a request ended.
type Outcome string

// The outcomes.
const (
	OutcomeUpgraded   Outcome = "upgraded"   // the new generation serves
	OutcomeFailed     Outcome = "failed"     // it does not, and the old one was not touched
	OutcomeUndone     Outcome = "undone"     // it did, and failed while the old one could take over again
	OutcomePromoted   Outcome = "promoted"   // a generation that shares has gone on to its next step
	OutcomeScaled     Outcome = "scaled"     // there are as many instances as was asked for
	OutcomeSuperseded Outcome = "superseded" // a later request took its place
	OutcomeRefused    Outcome = "refused"    // nothing was begun
	OutcomeStopped    Outcome = "stopped"    // the app has ended, and grace ends
	OutcomeReleased   Outcome = "released"   // the app runs on, and grace ends
	OutcomeSignalled  Outcome = "signalled"  // a signal was sent to the app
	OutcomeReexeced   Outcome = "reexeced"   // another grace has taken over
)

// Result is the answer to a request.
type Result struct {
	Outcome    Outcome
	Generation int
	Serving    int  // the generation that serves now, 0 if there is none
	Ran        bool // the app was executed
	Took       time.Duration
	Why        Reason
	Unchanged  bool  // it runs what ran before
	Share      Share // of the new connections, after a promotion
	Instances  int   // after scaling
}

// upgradeRecord is one upgrade on its way to a result, and then a line of the history.
type upgradeRecord struct {
	UpgradeRecord
	why      Reason
	requests []int // those that wait for the result
}

const historyLength = 10

// conclude gives an attempt its result, if there is one that has none. The first generation is started, and is
// no upgrade of anything.
func (m *Machine) conclude(g *generation, outcome Outcome, why Reason) {
	if g == nil || g.upgrade == nil {
		return
	}
	a := g.upgrade
	g.upgrade = nil
	a.Outcome, a.why, a.Took, a.Command = outcome, why, m.at.Sub(a.Began), g.Launch.Command
	if a.From != 0 {
		m.remember(*a, g.Launch)
	}
	m.answerAll(a.requests, Result{Outcome: outcome, Generation: g.Number, Took: a.Took, Why: why, Ran: g.executed(), Unchanged: a.Unchanged})
}

func (m *Machine) remember(a upgradeRecord, r LaunchSpec) {
	if a.Outcome == OutcomeUpgraded {
		m.say(Report{Fact: UpgradeDone, Generation: a.Generation, Took: a.Took, Why: a.sameness(r)})
	}
	a.requests = nil
	m.history = append(m.history, a)
	m.history = m.history[max(0, len(m.history)-historyLength):]
}

// sameness is for who has deployed something and would not see that it was not found.
func (a upgradeRecord) sameness(r LaunchSpec) Reason {
	if !a.Unchanged {
		return nil
	}
	return RunsTheSame{Generation: a.From, Executable: r.Executable, Dir: r.Dir}
}

func (m *Machine) answerAll(requests []int, r Result) {
	if m.current != nil && m.mode <= lingering {
		r.Serving = m.current.Number
	}
	for _, request := range requests {
		m.do(Answer{request, r})
	}
}

// pendingUpgrade is an upgrade that is wanted. What it is to run is known when it begins.
type pendingUpgrade struct {
	requests []int
	command  []string // nil: what the current generation runs
	rollback bool
	canary   []CanaryStep // nil: as the policy has it
	surge    *Surge       // nil: as the policy has it
	told     bool         // the log says why it waits
}

// joins reports whether the older one does what the newer one asks for: to run
// the same command, or whatever runs.
func (w *pendingUpgrade) joins(older *pendingUpgrade) bool {
	if w.command == nil && !w.rollback && w.canary == nil && w.surge == nil {
		return true
	}
	return w.rollback == older.rollback && slices.Equal(w.command, older.command) && slices.Equal(w.canary, older.canary) && sameSurge(w.surge, older.surge)
}

func (w *pendingUpgrade) explain(m *Machine, why Reason) {
	if !w.told {
		w.told = true
		m.say(Report{Fact: UpgradeWaiting, Why: why})
	}
}

func sameSurge(a, b *Surge) bool { return a == b || a != nil && b != nil && *a == *b }
