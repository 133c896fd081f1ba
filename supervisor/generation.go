package supervisor

import (
	"slices"
	"time"

	"github.com/gracerun/grace/childproc"
)

// Phase is where an instance is in its life.
type Phase int

// The phases, in the order in which they can follow one another.
const (
	Backoff  Phase = iota // waiting for a restart
	Starting              // started, or about to be, and not ready
	Ready                 // serving
	Draining              // told to stop, or ended with processes left behind
	Killing               // sent KILL
	Exited                // all its processes are gone
)

var phaseNames = [...]string{"backoff", "starting", "ready", "draining", "killing", "exited"}

func (p Phase) String() string { return phaseNames[p] }

// Stage is where a generation is in its life.
type Stage int

// The stages, in the order in which they follow one another.
const (
	StagePreparing Stage = iota // its command is being resolved and checked
	StageCandidate              // its instances start
	StageCurrent                // it serves
	StageDraining               // it was replaced, or failed, and drains
	StageEnded                  // nothing of it is left
)

var stageNames = [...]string{"preparing", "candidate", "current", "draining", "ended"}

func (s Stage) String() string { return stageNames[s] }

// instance is one process of the app, with what it may leave behind.
type instance struct {
	id         int
	slot       int // 0 to Instances-1: the place that a restart fills again
	generation *generation
	phase      Phase
	since      time.Time // of the phase
	pid        int       // of the main process; 0 until it is started
	processes  int       // started or adopted and not reaped
	failures   int       // in a row, in this slot
	timer      timer     // ends the phase
	deadline   time.Time // when it does
	watchdog   timer
	unready    string // why it is not ready
	ended      bool   // its main process has ended
	exit       childproc.Exit
	fault      bool // grace ended it because it did not work
}

// generation is the instances that were started from one command.
type generation struct {
	number     int
	stage      Stage
	since      time.Time // of the stage
	born       time.Time
	executable string
	preparing  bool // the answer to prepare is still to come
	touched    bool
	forced     bool // KILL was needed
	failure    string
	status     int // what grace exits with if this was the first
	progress   timer
	inFlight   int
	instances  []*instance // all that are not exited, oldest first
}

func (g *generation) enter(stage Stage, at time.Time) time.Duration {
	spent := at.Sub(g.since)
	g.stage, g.since = stage, at
	return spent
}

func (g *generation) ready() bool {
	waits := func(i *instance) bool { return i.phase != Ready }
	return len(g.instances) > 0 && !slices.ContainsFunc(g.instances, waits)
}

// alive reports whether any instance still runs, or waits for a restart.
func (g *generation) alive() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return !i.ended })
}

func (g *generation) remove(gone *instance) {
	g.instances = slices.DeleteFunc(g.instances, func(i *instance) bool { return i == gone })
}
