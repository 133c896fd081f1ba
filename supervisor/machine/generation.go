package machine

import (
	"fmt"
	"slices"
	"time"
)

// Stage is where a generation is in its life.
type Stage int

// The stages, in the order in which they follow one another.
const (
	StagePreparing Stage = iota // its command is being resolved and checked
	StageCandidate              // its instances start
	StageSharing                // it serves a share of the clients, beside the current one
	StageCurrent                // it serves
	StageSettling               // it was replaced, and takes over again if its successor fails
	StageWarm                   // it was replaced, and takes over again if somebody asks for it
	StageEmptying               // it was replaced, and finishes what it has before it is told to stop
	StageClosing                // its clients are asked to leave before it is told to stop
	StageDraining               // it was told to stop
	StageEnded                  // nothing of it is left
)

var stageNames = [...]string{"preparing", "candidate", "sharing", "current", "settling", "warm", "emptying", "closing", "draining", "ended"}

func (s Stage) String() string { return stageNames[s] }

func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *Stage) UnmarshalText(text []byte) (err error) {
	*s, err = named[Stage](string(text), stageNames[:])
	return err
}

// named is the number of a name that a newer grace process may have been the first to know.
func named[T ~int](name string, names []string) (T, error) {
	number := slices.Index(names, name)
	if number < 0 {
		return 0, fmt.Errorf("the state has something that is %q, which is not known here", name)
	}
	return T(number), nil
}

// generation is the instances that were started from one command. What does not travel is beside the snapshot.
type generation struct {
	GenerationSnapshot
	upgrade   *upgradeRecord // to bring it into service; nil once that has a result
	toldReady bool           // the log says that it serves
	stepsOn   bool           // its share becomes that of another step
	preparing bool           // the answer to prepare is still to come
	failure   Reason         // why it was given up; nil for one that was not
	ending    Reason         // why its end is no drain, as far as is known
	progress  Timer
	leaveBy   Timer       // ends the stage, of one that shares or leaves
	announced bool        // its clients are to be asked to leave
	asked     bool        // they were
	holding   bool        // what they send is to be held back
	turnsAway bool        // it gets no new connections, and is told to stop when it has accepted the last
	instances []*instance // all that are not exited, oldest first
}

func (g *generation) enter(stage Stage, at time.Time) time.Duration {
	spent := at.Sub(g.Since)
	g.Stage, g.Since = stage, at
	return spent
}

// emptied reports whether it was waited for that nothing went on in it.
func (g *generation) emptied() bool { return !g.Emptying.IsZero() }

func (g *generation) ready() bool {
	waits := func(i *instance) bool { return i.Phase != PhaseReady }
	return len(g.instances) > 0 && !slices.ContainsFunc(g.instances, waits)
}

// serves reports whether any instance is ready.
func (g *generation) serves() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.Phase == PhaseReady })
}

// drains reports whether its app sends its clients away itself.
func (g *generation) drains() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.Drains })
}

func (g *generation) backoffs() []*instance {
	return slices.DeleteFunc(slices.Clone(g.instances), func(i *instance) bool { return i.Phase != PhaseBackoff })
}

// held are those that are started again only when somebody wants them.
func (g *generation) held() []*instance {
	return slices.DeleteFunc(g.backoffs(), func(i *instance) bool { return i.timer != (Timer{}) })
}

// starts reports whether any instance is to be ready yet.
func (g *generation) starts() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.Phase < PhaseReady && !i.Ended })
}

// leaving reports whether it was replaced or failed, and something of it is left.
func (g *generation) leaving() bool { return g.Stage >= StageSettling && g.Stage < StageEnded }

// pids are the main processes that were started, and what ended ones have left behind.
func (g *generation) pids() []int {
	var pids []int
	for _, i := range g.instances {
		if i.PID != 0 {
			pids = append(pids, i.PID)
		}
		for _, r := range i.Rest {
			pids = append(pids, r.PID)
		}
	}
	return pids
}

// requests sums what its instances say that they work on; told is false if none
// has ever said so.
func (g *generation) requests() (sum int, told bool) {
	for _, i := range g.instances {
		if i.InFlight != nil && !i.Ended {
			sum, told = sum+*i.InFlight, true
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
	return g.Ran || slices.ContainsFunc(g.instances, func(i *instance) bool { return i.PID != 0 && !i.Ended })
}

// alive reports whether any instance still runs, or waits for a restart.
func (g *generation) alive() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return !i.Ended })
}

func (g *generation) remove(gone *instance) {
	g.instances = slices.DeleteFunc(g.instances, func(i *instance) bool { return i == gone })
}
