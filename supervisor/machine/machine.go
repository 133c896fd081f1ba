package machine

import (
	"slices"
	"time"
)

// mode is what all of grace is about to do.
type mode int

const (
	running   mode = iota
	lingering      // told to stop, and serving on for the drain delay
	stopping       // everything drains
	done
)

// Machine decides. It is plain data and has no clock, log, channel or goroutine:
// step takes one event and says what is to be done about it.
type Machine struct {
	policy       Policy
	mode         mode
	at           time.Time
	generations  []*generation // all that are not ended, oldest first
	instances    map[int]*instance
	current      *generation // nil until a generation was ready
	candidate    *generation
	pending      *pendingUpgrade // the upgrade that is wanted and not begun
	rolling      *generation     // that comes, or goes back, one instance after another
	scaling      *scaling        // the number of instances that is wanted
	scaled       bool            // it was changed
	replacements []replacement
	gap          time.Time // since when nothing serves in an upgrade; zero: something does
	batches      int       // as many numbers were given to them
	retired      []int     // generations that have ended, and whose executables are kept
	history      []upgradeRecord
	reexec       *pendingReexec
	stoppers     []int       // the requests that wait for the end
	told         time.Time   // when grace was first told to stop
	toldFirst    bool        // the log says that a generation serves
	served       bool        // some generation was ready once
	keeping      int         // keep actions that have no answer
	keptOf       map[int]int // the generations of batches whose connections are kept
	hastened     bool        // all of these are to end soon
	cutovers     int         // steer actions that have no answer
	cutover      Timer       // how long the last of them is waited for
	promotions   []promotion // to be answered once connections go where they are to go
	undone       *undone     // to be told once connections go back
	back         []int       // the requests that wait for the old generation to serve alone again
	notifying    map[string]bool
	ended        int // the generation that has ended last
	endedAt      time.Time
	delay        Timer
	restarts     int
	restartedAt  []time.Time // those that count against the limit
	crashes      int
	status       int // what to finish with
	generation   int // the numbers given last
	instance     int
	timers       int
	actions      []Action
}

func NewMachine(p Policy) *Machine {
	return &Machine{policy: p, instances: map[int]*instance{}, notifying: map[string]bool{}, keptOf: map[int]int{}}
}

// Begin starts the first generation.
func (m *Machine) Begin(at time.Time) []Action {
	m.at, m.actions = at, nil
	m.upgrade(&pendingUpgrade{})
	return m.actions
}

// Step decides what follows from ev, which happened at the given time.
func (m *Machine) Step(at time.Time, ev Event) []Action {
	m.at, m.actions = at, nil
	if m.mode == done {
		return nil
	}
	ev.step(m)
	m.settle()
	return m.actions
}

// settle does what may have become possible: the upgrade that waited, the end.
func (m *Machine) settle() {
	m.giveUpTakeover()
	m.promoteAlone()
	m.tryJoin()
	m.roll()
	if m.mode == running && m.pending != nil && m.candidate == nil && m.rolling == nil && (m.reexec == nil || !m.reexec.begun) {
		m.tryUpgrade()
	}
	m.tryScale()
	m.tryReplacement()
	m.tryReexec()
	m.discardUnwanted()
	if m.mode == stopping && len(m.generations) == 0 && m.keeping == 0 {
		m.end()
	}
	if m.pending != nil {
		m.pending.explain(m, OtherUpgrade)
	}
}

// discardUnwanted: an executable is kept as long as a rollback can ask for it.
func (m *Machine) discardUnwanted() {
	wanted := func(number int) bool {
		return slices.ContainsFunc(m.generations, func(g *generation) bool { return g.Before != nil && g.Before.Generation == number })
	}
	m.retired = slices.DeleteFunc(m.retired, func(number int) bool {
		if wanted(number) {
			return false
		}
		m.do(Discard{number})
		return true
	})
}

func (m *Machine) end() {
	m.mode = done
	m.disarm(&m.cutover)
	m.leavePromotions(Result{Outcome: OutcomeFailed, Why: GraceStopping})
	m.answerAll(m.stoppers, Result{Outcome: OutcomeStopped})
	m.do(Finish{m.status})
}

func (m *Machine) find(generation int) *generation {
	for _, g := range m.generations {
		if g.Number == generation {
			return g
		}
	}
	return nil
}

func (m *Machine) do(a Action) { m.actions = append(m.actions, a) }

func (m *Machine) say(r Report) { m.do(r) }
