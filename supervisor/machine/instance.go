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

func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p *Phase) UnmarshalText(text []byte) (err error) {
	*p, err = named[Phase](string(text), phaseNames[:])
	return err
}

// instance is one process of the app, with what it may leave behind. What does not travel is beside the snapshot, which has
// the phase's end and the exit only once it was taken.
type instance struct {
	InstanceSnapshot
	generation *generation
	shortage   Exit      // of the start before this one, if the app had no part in its failure
	timer      Timer     // ends the phase
	deadline   time.Time // when it does
	watchdog   Timer
	aging      Timer     // ends its life
	notBefore  time.Time // it is not to be replaced until then
	unreplaced int       // so often it could not be
	hangs      bool      // it was seen to
	signDue    time.Time // when the watchdog expires
	unready    string    // why it is not ready
	obstacle   string    // what was seen to keep it from that
	exit       Exit
}

func (m *Machine) newInstance(g *generation, slot, failures int) *instance {
	m.instance++
	i := &instance{InstanceSnapshot: InstanceSnapshot{ID: m.instance, Slot: slot, Since: m.at, Failures: failures}, generation: g}
	m.instances[i.ID] = i
	g.instances = append(g.instances, i)
	return i
}

func (m *Machine) startInstance(i *instance) {
	m.enter(i, PhaseStarting, m.policy.ReadyTimeout)
	a := Start{Generation: i.generation.Number, Of: i.generation.Named(), Instance: i.ID, Slot: i.Slot, MustNotify: m.notifying[i.generation.Launch.Executable]}
	if m.current != nil && i.generation.Of == 0 && i.generation.Stage <= StageSharing {
		a.Predecessor = m.current.Number
	}
	m.do(a)
}

func (m *Machine) enter(i *instance, phase Phase, limit time.Duration) {
	m.disarm(&i.timer)
	if i.Phase == PhaseStarting && phase != PhaseStarting {
		m.do(Dismiss{i.ID})
	}
	i.Phase, i.Since = phase, m.at
	if limit > 0 {
		i.timer = m.arm(Timer{Instance: i.ID}, limit)
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
		if i.PID != 0 {
			m.tellToStop(i)
		}
	case PhaseDraining:
		if i.generation.foreign() && i.Ended && !i.Searched {
			m.enter(i, PhaseDraining, within)
			m.tellRest(i)
		}
	case PhaseKilling, PhaseExited:
	}
	m.disarm(&i.watchdog)
}

func (m *Machine) tellToStop(i *instance) {
	i.Told = true
	if m.policy.StopGroup {
		m.do(TellGroup{i.ID, m.stopSignal(i.generation)})
		return
	}
	m.do(Tell{i.ID, m.stopSignal(i.generation)})
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
	m.say(Report{Fact: InstanceWithdrawn, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Within: within, Why: SentStopping})
}

// account is what an instance says that it works on still, and what it has left behind.
func (i *instance) account() Reason {
	switch {
	case i.Ended && len(i.Rest) > 0:
		return LeftBehind{i.Rest}
	case i.Ended, i.InFlight == nil:
		return nil
	}
	return RequestsInFlight{*i.InFlight}
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
	if i.PID == 0 {
		return
	}
	if m.mode == stopping || i.generation.Stage == StageDraining {
		i.generation.Forced = true
	}
	if m.mode == stopping && m.status == 0 {
		m.status = 128 + 9
	}
	m.do(Kill{i.ID})
}

func (ev Started) meet(m *Machine, i *instance) {
	i.PID, i.Processes = ev.PID, 1
	m.say(Report{Fact: InstanceStarted, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID})
	m.remind(i)
}

func (ev StartFailed) meet(m *Machine, i *instance) {
	i.Ended, i.exit = true, ev.Exit
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
	if i.Phase != PhaseStarting || i.Ended {
		return
	}
	took := m.at.Sub(i.Since)
	g.Touched, i.obstacle = true, ""
	m.enter(i, PhaseReady, i.forgivenAfter())
	m.watch(i)
	m.age(i)
	m.say(Report{Fact: InstanceReady, Generation: g.Named(), Instance: i.ID, PID: i.PID, Took: took})
	if g == m.current || g == m.rolling {
		m.endGap(g)
	}
	if g.Stage == StageCandidate && g.ready() {
		m.comeIn(g)
	}
}

// forgivenAfter is when failures before this instance are forgotten; 0: there were none, and nothing is to wake grace up.
func (i *instance) forgivenAfter() time.Duration {
	if i.Failures == 0 {
		return 0
	}
	return healthyAfter
}

func (ev Moved) meet(m *Machine, i *instance) {
	i.PID = ev.PID
	i.Processes++
	m.say(Report{Fact: MainProcessMoved, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID})
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
	if ev.PID != i.PID || i.Ended {
		return // it only launched the main process, or came after its end
	}
	i.Ended, i.exit = true, ev.Exit
	i.generation.Ran = i.generation.Ran || ev.Exit.NotRun == ""
	m.disarm(&i.watchdog)
	m.reportExit(i)
	m.noteEnding(i)
	switch i.Phase {
	case PhaseStarting, PhaseReady:
		if i.generation.foreign() && i.generation.Stage == StageCurrent { // its workers may serve, and are told once they are replaced
			m.enter(i, PhaseDraining, 0)
			break
		}
		m.enter(i, PhaseDraining, m.drainTime(i.generation))
		m.do(TellRest{Instance: i.ID, Signal: m.stopSignal(i.generation), Crashed: true})
	case PhaseDraining: // what it has left behind has what is left of the time
		m.tellRest(i)
	case PhaseKilling:
		m.do(TellRest{Instance: i.ID, Signal: syscall.SIGKILL})
	case PhaseBackoff, PhaseExited:
	}
	m.lose(i, both(InstanceExited{ev.Exit}, said(i.obstacle)))
}

// noteEnding keeps why the end of an instance that was told to stop is no drain. An exit status of 128 and the signal's
// number says that the app has heeded it.
func (m *Machine) noteEnding(i *instance) {
	g, e := i.generation, i.exit
	stop := m.stopSignal(g)
	switch {
	case g.ending != nil, !i.Told, e.Unknown:
	case e.Signal == stop && g.InFlight > 0:
		g.ending = StoppedInFlight{g.InFlight}
	case e.Signal != stop && e.Status() != 0 && e.Status() != 128+int(stop):
		g.ending = EndedOtherwise{i.ID, e}
	}
}

// unreadiness is all that is known of why it is not ready.
func (i *instance) unreadiness() Reason { return both(said(i.unready), said(i.obstacle)) }

func (m *Machine) reportExit(i *instance) {
	fact := i.endFact()
	if fact == InstanceCrashed {
		m.crashes++
	}
	m.say(Report{Fact: fact, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Took: m.at.Sub(i.Since), Why: i.exit})
}

func (i *instance) endFact() Fact {
	switch {
	case i.Phase != PhaseStarting && i.Phase != PhaseReady:
		return InstanceEnded
	case i.generation.Stage == StageCurrent && !i.exit.Shortage:
		return InstanceCrashed
	}
	return InstanceFailed
}

// lose decides what the end of an instance means for its generation.
func (m *Machine) lose(i *instance, why Reason) {
	switch i.generation.Stage {
	case StageSharing:
		if m.mode < stopping {
			m.fail(i.generation, why, i.exit.Status())
		}
	case StageCandidate:
		m.fail(i.generation, why, i.exit.Status())
	case StageCurrent:
		if before := m.settling(); before != nil && before.serves() && m.mode < stopping {
			m.giveBack(i.generation, before, why)
			return
		}
		m.restart(i)
	case StageSettling, StageWarm, StageEmptying:
		m.loseReplaced(i)
	case StagePreparing, StageClosing, StageDraining, StageEnded:
	}
}

func (m *Machine) restart(i *instance) {
	g := i.generation
	g.Status = i.exit.Status()
	if !m.wantsRestart(i) {
		m.endIfDeserted()
		return
	}
	if m.exhausted(i) {
		m.giveUp(i)
		return
	}
	m.noteRestart(i)
	m.fill(i)
}

func (m *Machine) wantsRestart(i *instance) bool {
	return m.mode < stopping && !i.generation.foreign() && m.policy.Restart.wants(i.Fault || i.exit.Failed())
}

// fill has another instance take the place of one that has ended. A start that failed by
// no fault of the app's is told of once.
func (m *Machine) fill(i *instance) {
	next, delay := m.succeed(i)
	if m.rolling == nil && (next.shortage == (Exit{}) || next.shortage != i.shortage) {
		m.tellRestart(next, delay, i.exit)
	}
}

// succeed gives the instance that takes the place of one that has ended, in so long. A start that
// failed by no fault of the app's is tried again soon, always.
func (m *Machine) succeed(i *instance) (*instance, time.Duration) {
	next := m.newInstance(i.generation, i.Slot, i.Failures+1)
	delay := backoffAfter(i.Failures)
	if i.exit.Shortage {
		next.Failures, next.shortage, delay = i.Failures, i.exit, shortageRetry
	}
	next.timer = m.armJittered(Timer{Instance: next.ID}, delay)
	return next, delay
}

func (m *Machine) tellRestart(next *instance, delay time.Duration, why Reason) {
	m.restarts++
	m.say(Report{Fact: InstanceRestarting, Generation: next.generation.Named(), Instance: next.ID, Within: delay, Why: why})
}

func (ev Emptied) meet(m *Machine, i *instance) {
	m.do(Reap{i.ID, ev.PID})
	i.Processes--
	if i.Processes == 0 {
		m.exit(i)
	}
}

// exit is the end of an instance's life.
func (m *Machine) exit(i *instance) {
	m.disarm(&i.timer)
	m.disarm(&i.watchdog)
	m.disarm(&i.aging)
	i.Phase = PhaseExited
	delete(m.instances, i.ID)
	i.generation.remove(i)
	m.do(Release{i.ID})
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
