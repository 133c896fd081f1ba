package supervisor

import (
	"fmt"
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

// machine decides. It is plain data and has no clock, log, channel or goroutine:
// step takes one event and says what is to be done about it.
type machine struct {
	policy      Policy
	mode        mode
	at          time.Time
	generations []*generation // all that are not ended, oldest first
	instances   map[int]*instance
	current     *generation // nil until a generation was ready
	candidate   *generation
	wish        *wish // the upgrade that is wanted and not begun
	retired     []int // generations that have ended, and whose executables are kept
	history     []attempt
	relay       *relay
	stoppers    []int     // the requests that wait for the end
	told        time.Time // when grace was first told to stop
	served      bool      // some generation was ready once
	notifying   map[string]bool
	ended       int // the generation that has ended last
	endedAt     time.Time
	delay       timer
	stopBy      time.Time // when the time of a stop is over
	restarts    int
	crashes     int
	status      int // what to finish with
	generation  int // the numbers given last
	instance    int
	timers      int
	actions     []action
}

func newMachine(p Policy) *machine {
	return &machine{policy: p, instances: map[int]*instance{}, notifying: map[string]bool{}}
}

// begin starts the first generation.
func (m *machine) begin(at time.Time) []action {
	m.at, m.actions = at, nil
	m.upgrade(&wish{})
	return m.actions
}

// step decides what follows from ev, which happened at the given time.
func (m *machine) step(at time.Time, ev event) []action {
	m.at, m.actions = at, nil
	if m.mode == done {
		return nil
	}
	switch ev := ev.(type) {
	case upgradeRequested:
		m.onUpgradeRequested(ev)
	case stopRequested:
		m.onStopRequested(ev)
	case killRequested:
		m.onKillRequested(ev)
	case reexecRequested:
		m.onReexecRequested(ev)
	case reexecDelayed:
		m.onReexecDelayed()
	case reexecFailed:
		m.onReexecFailed(ev)
	case reexeced:
		m.onReexeced(ev)
	case signalReceived:
		m.onSignalReceived(ev)
	case prepared:
		m.onPrepared(ev)
	case prepareFailed:
		m.onPrepareFailed(ev)
	case counted:
		m.onCounted(ev)
	case quieted:
		m.onQuieted(ev)
	case awaited:
		m.onAwaited(ev)
	case revived:
		m.onRevived(ev)
	case uncaptured:
		m.onUncaptured(ev)
	case closed:
		m.onClosed(ev)
	case noticed:
		m.say(report{level: warn, text: ev.text, why: ev.why})
	case timerExpired:
		m.onTimerExpired(ev.timer)
	case instanceEvent:
		m.stepInstance(ev)
	default:
		panic(fmt.Sprintf("supervisor: event %T is not decided", ev))
	}
	m.settle()
	return m.actions
}

// stepInstance takes the events of one instance. One that is unknown has exited,
// and nothing that comes late matters any more.
func (m *machine) stepInstance(ev instanceEvent) {
	i := m.instances[ev.of()]
	if i == nil {
		return
	}
	switch ev := ev.(type) {
	case started:
		m.onStarted(i, ev)
	case startFailed:
		m.onStartFailed(i, ev)
	case touched:
		i.generation.touched = true
	case opened:
		i.generation.opened = true
	case unreadied:
		i.unready = ev.why
	case obstructed:
		m.onObstructed(i, ev)
	case readied:
		m.onReadied(i)
	case notified:
		m.notifying[i.generation.recipe.Executable] = true
	case moved:
		m.onMoved(i, ev)
	case exited:
		m.onExited(i, ev)
	case emptied:
		m.onEmptied(i, ev)
	case left:
		m.onLeft(i, ev)
	case extended:
		m.onExtended(i, ev)
	case pinged:
		m.onPinged(i)
	case withdrawn:
		m.onWithdrawn(i)
	case tallied:
		i.inFlight = &ev.inFlight
	case fellBack:
		m.say(report{level: warn, text: "cannot see readiness: taken for ready after --ready-delay", generation: i.generation.number, instance: i.id, why: ev.why})
	case described:
		i.says = ev.text
		m.say(report{level: debug, text: "app says", generation: i.generation.number, instance: i.id, why: ev.text})
	default:
		panic(fmt.Sprintf("supervisor: event %T is not decided", ev))
	}
}

// settle does what may have become possible: the upgrade that waited, the end.
func (m *machine) settle() {
	if m.mode == running && m.wish != nil && m.candidate == nil && (m.relay == nil || !m.relay.begun) {
		m.tryUpgrade()
	}
	m.tryReexec()
	m.discardUnwanted()
	if m.mode == stopping && len(m.generations) == 0 {
		m.end()
	}
	if m.wish != nil {
		m.wish.explain(m, "another one is under way")
	}
}

// discardUnwanted: an executable is kept as long as a rollback can ask for it.
func (m *machine) discardUnwanted() {
	wanted := func(number int) bool {
		return slices.ContainsFunc(m.generations, func(g *generation) bool { return g.before != nil && g.before.Generation == number })
	}
	m.retired = slices.DeleteFunc(m.retired, func(number int) bool {
		if wanted(number) {
			return false
		}
		m.do(discard{number})
		return true
	})
}

func (m *machine) end() {
	m.mode = done
	m.answerAll(m.stoppers, result{outcome: OutcomeStopped})
	m.do(finish{m.status})
}

func (m *machine) find(generation int) *generation {
	for _, g := range m.generations {
		if g.number == generation {
			return g
		}
	}
	return nil
}

func (m *machine) do(a action) { m.actions = append(m.actions, a) }

func (m *machine) say(r report) { m.do(r) }
