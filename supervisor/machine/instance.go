package machine

import (
	"syscall"
	"time"
)

// Phase is where an instance is in its life.
type Phase int

// The phases, in the order in which they can follow one another.
const (
	PhaseBackoff  Phase = iota // waiting for a restart
	PhaseStarting              // started, or about to be, and not ready
	PhaseReady                 // serving
	PhaseDraining              // told to stop, or ended with processes left behind
	PhaseKilling               // sent KILL
	PhaseExited                // all its processes are gone
)

var phaseNames = [...]string{"backoff", "starting", "ready", "draining", "killing", "exited"}

func (p Phase) String() string { return phaseNames[p] }

// instance is one process of the app, with what it may leave behind.
type instance struct {
	id         int
	slot       int // 0 to Instances-1: the place that a restart fills again
	generation *generation
	Phase      Phase
	Since      time.Time // of the phase
	pid        int       // of the main process; 0 until it is started
	processes  int       // started or adopted and not reaped
	failures   int       // in a row, in this slot
	shortage   Exit      // of the start before this one, if the app had no part in its failure
	timer      Timer     // ends the phase
	deadline   time.Time // when it does
	watchdog   Timer
	signDue    time.Time  // when the watchdog expires
	unready    string     // why it is not ready
	obstacle   string     // what was seen to keep it from that
	inFlight   *int       // requests, as it said last
	says       string     // of itself
	told       bool       // it was sent the stop signal
	ended      bool       // its main process has ended
	rest       []Leftover // what that has left behind, as far as it is known
	searched   bool       // what it has left behind was looked for, and told to stop
	exit       Exit
	fault      bool // grace ended it because it did not work
}

func (m *Machine) newInstance(g *generation, slot, failures int) *instance {
	m.instance++
	i := &instance{id: m.instance, slot: slot, generation: g, Since: m.at, failures: failures}
	m.Instances[i.id] = i
	g.instances = append(g.instances, i)
	return i
}

func (m *Machine) startInstance(i *instance) {
	m.enter(i, PhaseStarting, m.policy.ReadyTimeout)
	a := Start{Generation: i.generation.number, Instance: i.id, Slot: i.slot, MustNotify: m.notifying[i.generation.recipe.Executable]}
	if m.current != nil && i.generation.stage == StageCandidate {
		a.Predecessor = m.current.number
	}
	m.do(a)
}

func (m *Machine) enter(i *instance, phase Phase, limit time.Duration) {
	m.disarm(&i.timer)
	if i.Phase == PhaseStarting && phase != PhaseStarting {
		m.do(Dismiss{i.id})
	}
	i.Phase, i.Since = phase, m.at
	if limit > 0 {
		i.timer = m.arm(Timer{Instance: i.id}, limit)
		i.deadline = m.at.Add(limit)
	}
}

// drainInstance asks an instance to end.
func (m *Machine) drainInstance(i *instance, within time.Duration) {
	switch i.Phase {
	case PhaseBackoff:
		m.exit(i)
	case PhaseStarting, PhaseReady:
		m.enter(i, PhaseDraining, within)
		if i.pid != 0 {
			m.tellToStop(i)
		}
	case PhaseDraining, PhaseKilling, PhaseExited:
	}
	m.disarm(&i.watchdog)
}

func (m *Machine) tellToStop(i *instance) {
	i.told = true
	if m.policy.StopGroup {
		m.do(TellGroup{i.id, m.policy.StopSignal})
		return
	}
	m.do(Tell{i.id, m.policy.StopSignal})
}

// meet gives an instance that ends by itself the time of a drain, and does
// not tell it to: a second signal would cut what it finishes. What its end means
// is decided when it has come.
func (Withdrawn) meet(m *Machine, i *instance) {
	if i.Phase != PhaseStarting && i.Phase != PhaseReady {
		return
	}
	within := m.drainTime(i.generation)
	m.enter(i, PhaseDraining, within)
	m.disarm(&i.watchdog)
	m.say(Report{Fact: InstanceWithdrawn, Generation: i.generation.number, Instance: i.id, PID: i.pid, Within: within, Why: SentStopping})
}

// account is what an instance says that it works on still, and what it has left behind.
func (i *instance) account() Reason {
	switch {
	case i.ended && len(i.rest) > 0:
		return LeftBehind{i.rest}
	case i.ended, i.inFlight == nil:
		return nil
	}
	return RequestsInFlight{*i.inFlight}
}

// kill ends an instance by force.
func (m *Machine) kill(i *instance) {
	if i.Phase == PhaseExited {
		return
	}
	if i.Phase == PhaseBackoff {
		m.exit(i)
		return
	}
	m.disarm(&i.watchdog)
	m.enter(i, PhaseKilling, killPatience)
	m.force(i)
}

func (m *Machine) force(i *instance) {
	if i.pid == 0 {
		return
	}
	if m.mode == stopping || i.generation.stage == StageDraining {
		i.generation.forced = true
	}
	if m.mode == stopping && m.status == 0 {
		m.status = 128 + 9
	}
	m.do(Kill{i.id})
}

func (ev Started) meet(m *Machine, i *instance) {
	i.pid, i.processes = ev.PID, 1
	m.say(Report{Fact: InstanceStarted, Generation: i.generation.number, Instance: i.id, PID: i.pid})
	m.remind(i)
}

func (ev StartFailed) meet(m *Machine, i *instance) {
	i.ended, i.exit = true, ev.Exit
	m.lose(i, ev.Exit)
	m.exit(i)
}

// meet: what comes late is no reason any more.
func (ev Obstructed) meet(m *Machine, i *instance) {
	if i.Phase == PhaseStarting {
		i.obstacle = ev.Why
	}
}

func (Readied) meet(m *Machine, i *instance) {
	g := i.generation
	if i.Phase != PhaseStarting || i.ended {
		return
	}
	took := m.at.Sub(i.Since)
	g.touched, i.obstacle = true, ""
	m.enter(i, PhaseReady, healthyAfter)
	m.watch(i)
	m.say(Report{Fact: InstanceReady, Generation: g.number, Instance: i.id, PID: i.pid, Took: took})
	if g.stage == StageCandidate && g.ready() {
		m.promote(g)
	}
}

func (ev Moved) meet(m *Machine, i *instance) {
	i.pid = ev.PID
	i.processes++
	m.say(Report{Fact: MainProcessMoved, Generation: i.generation.number, Instance: i.id, PID: i.pid})
	m.remind(i)
}

// remind tells a new main process what the instance was told before it came.
func (m *Machine) remind(i *instance) {
	switch i.Phase {
	case PhaseDraining:
		m.tellToStop(i)
	case PhaseKilling:
		m.force(i)
	case PhaseBackoff, PhaseStarting, PhaseReady, PhaseExited:
	}
}

func (ev Exited) meet(m *Machine, i *instance) {
	if ev.PID != i.pid || i.ended {
		return // it only launched the main process, or came after its end
	}
	i.ended, i.exit = true, ev.Exit
	i.generation.ran = i.generation.ran || ev.Exit.NotRun == ""
	m.disarm(&i.watchdog)
	m.reportExit(i)
	m.noteEnding(i)
	switch i.Phase {
	case PhaseStarting, PhaseReady:
		m.enter(i, PhaseDraining, m.drainTime(i.generation))
		m.do(TellRest{Instance: i.id, Signal: m.policy.StopSignal, Crashed: true})
	case PhaseDraining: // what it has left behind has what is left of the time
		m.tellRest(i)
	case PhaseKilling:
		m.do(TellRest{Instance: i.id, Signal: syscall.SIGKILL})
	case PhaseBackoff, PhaseExited:
	}
	m.lose(i, both(InstanceExited{ev.Exit}, said(i.obstacle)))
}

// noteEnding keeps why the end of an instance that was told to stop is no drain. An exit status of 128 and the signal's
// number says that the app has heeded it.
func (m *Machine) noteEnding(i *instance) {
	g, e := i.generation, i.exit
	switch {
	case g.ending != nil, !i.told, e.Unknown:
	case e.Signal == m.policy.StopSignal && g.inFlight > 0:
		g.ending = StoppedInFlight{g.inFlight}
	case e.Signal != m.policy.StopSignal && e.Status() != 0 && e.Status() != 128+int(m.policy.StopSignal):
		g.ending = EndedOtherwise{i.id, e}
	}
}

// unreadiness is all that is known of why it is not ready.
func (i *instance) unreadiness() Reason { return both(said(i.unready), said(i.obstacle)) }

func (m *Machine) reportExit(i *instance) {
	fact := i.endFact()
	if fact == InstanceCrashed {
		m.crashes++
	}
	m.say(Report{Fact: fact, Generation: i.generation.number, Instance: i.id, PID: i.pid, Took: m.at.Sub(i.Since), Why: i.exit})
}

func (i *instance) endFact() Fact {
	switch {
	case i.Phase != PhaseStarting && i.Phase != PhaseReady:
		return InstanceEnded
	case i.generation.stage == StageCurrent && !i.exit.Shortage:
		return InstanceCrashed
	}
	return InstanceFailed
}

// lose decides what the end of an instance means for its generation.
func (m *Machine) lose(i *instance, why Reason) {
	switch i.generation.stage {
	case StageCandidate:
		m.fail(i.generation, why, i.exit.Status())
	case StageCurrent:
		if before := m.settling(); before != nil && before.serves() && m.mode < stopping {
			m.giveBack(i.generation, before, why)
			return
		}
		m.restart(i)
	case StageSettling, StageEmptying:
		m.dwindle(i)
	case StagePreparing, StageDraining, StageEnded:
	}
}

func (m *Machine) restart(i *instance) {
	g := i.generation
	g.status = i.exit.Status()
	if !m.wantsRestart(i) {
		m.endIfDeserted()
		return
	}
	m.fill(i)
}

func (m *Machine) wantsRestart(i *instance) bool {
	return m.mode < stopping && m.policy.Restart.wants(i.fault || i.exit.Failed())
}

// fill has another instance take the place of one that has ended. A start that failed by
// no fault of the app's is told of once.
func (m *Machine) fill(i *instance) {
	next, delay := m.succeed(i)
	if next.shortage == (Exit{}) || next.shortage != i.shortage {
		m.tellRestart(next, delay, i.exit)
	}
}

// succeed gives the instance that takes the place of one that has ended, in so long. A start that
// failed by no fault of the app's is tried again soon, always.
func (m *Machine) succeed(i *instance) (*instance, time.Duration) {
	next := m.newInstance(i.generation, i.slot, i.failures+1)
	delay := backoffAfter(i.failures)
	if i.exit.Shortage {
		next.failures, next.shortage, delay = i.failures, i.exit, shortageRetry
	}
	next.timer = m.armJittered(Timer{Instance: next.id}, delay)
	return next, delay
}

func (m *Machine) tellRestart(next *instance, delay time.Duration, why Reason) {
	m.restarts++
	m.say(Report{Fact: InstanceRestarting, Generation: next.generation.number, Instance: next.id, Within: delay, Why: why})
}

func (ev Emptied) meet(m *Machine, i *instance) {
	m.do(Reap{i.id, ev.PID})
	i.processes--
	if i.processes == 0 {
		m.exit(i)
	}
}

// exit is the end of an instance's life.
func (m *Machine) exit(i *instance) {
	m.disarm(&i.timer)
	m.disarm(&i.watchdog)
	i.Phase = PhaseExited
	delete(m.Instances, i.id)
	i.generation.remove(i)
	m.do(Release{i.id})
	m.endIfEmpty(i.generation)
}

func (ev Extended) meet(m *Machine, i *instance) {
	deadline := m.at.Add(ev.By)
	if (i.Phase == PhaseStarting || i.Phase == PhaseDraining) && deadline.After(i.deadline) {
		since := i.Since
		m.enter(i, i.Phase, ev.By)
		i.Since = since
	}
}
