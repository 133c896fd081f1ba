package machine

import (
	"slices"
	"time"
)

// Stage is where a generation is in its life.
type Stage int

// The stages, in the order in which they follow one another.
const (
	StagePreparing Stage = iota // its command is being resolved and checked
	StageCandidate              // its instances start
	StageCurrent                // it serves
	StageSettling               // it was replaced, and can take over again
	StageEmptying               // it was replaced, and finishes what it has before it is told to stop
	StageDraining               // it was told to stop
	StageEnded                  // nothing of it is left
)

var stageNames = [...]string{"preparing", "candidate", "current", "settling", "emptying", "draining", "ended"}

func (s Stage) String() string { return stageNames[s] }

// generation is the instances that were started from one command.
type generation struct {
	number    int
	stage     Stage
	since     time.Time // of the stage
	born      time.Time
	recipe    Recipe
	before    *Recipe        // what served when it came to serve
	attempt   *upgradeRecord // to bring it into service; nil once that has a result
	preparing bool           // the answer to prepare is still to come
	ran       bool           // the app was executed
	touched   bool
	opened    bool   // it has sockets of its own
	forced    bool   // its drain needed KILL
	failure   Reason // why it was given up; nil for one that was not
	status    int    // of the instance that ended last while it served
	progress  Timer
	relief    Timer // ends StageSettling or StageEmptying
	inFlight  int
	ending    Reason      // why its end is no drain, as far as is known
	instances []*instance // all that are not exited, oldest first
}

func (g *generation) enter(stage Stage, at time.Time) time.Duration {
	spent := at.Sub(g.since)
	g.stage, g.since = stage, at
	return spent
}

func (g *generation) ready() bool {
	waits := func(i *instance) bool { return i.Phase != PhaseReady }
	return len(g.instances) > 0 && !slices.ContainsFunc(g.instances, waits)
}

// serves reports whether any instance is ready.
func (g *generation) serves() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.Phase == PhaseReady })
}

func (g *generation) backoffs() []*instance {
	return slices.DeleteFunc(slices.Clone(g.instances), func(i *instance) bool { return i.Phase != PhaseBackoff })
}

// starts reports whether any instance is to be ready yet.
func (g *generation) starts() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.Phase < PhaseReady && !i.ended })
}

// leaving reports whether it was replaced or failed, and something of it is left.
func (g *generation) leaving() bool { return g.stage >= StageSettling && g.stage < StageEnded }

// pids are the main processes that were started, and what ended ones have left behind.
func (g *generation) pids() []int {
	var pids []int
	for _, i := range g.instances {
		if i.pid != 0 {
			pids = append(pids, i.pid)
		}
		for _, r := range i.rest {
			pids = append(pids, r.PID)
		}
	}
	return pids
}

// requests sums what its instances say that they work on; told is false if none
// has ever said so.
func (g *generation) requests() (sum int, told bool) {
	for _, i := range g.instances {
		if i.inFlight != nil && !i.ended {
			sum, told = sum+*i.inFlight, true
		}
	}
	return sum, told
}

// obstructed reports whether a reason is known why it does not serve.
func (g *generation) obstructed() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.obstacle != "" })
}

// executed reports whether the app has run, and may have written something.
func (g *generation) executed() bool {
	return g.ran || slices.ContainsFunc(g.instances, func(i *instance) bool { return i.pid != 0 && !i.ended })
}

// alive reports whether any instance still runs, or waits for a restart.
func (g *generation) alive() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return !i.ended })
}

func (g *generation) remove(gone *instance) {
	g.instances = slices.DeleteFunc(g.instances, func(i *instance) bool { return i == gone })
}
