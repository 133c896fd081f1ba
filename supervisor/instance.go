package supervisor

import (
	"fmt"
	"syscall"
	"time"
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
	shortage   string    // why the start before this one failed, if the app had no part in it
	timer      timer     // ends the phase
	deadline   time.Time // when it does
	watchdog   timer
	signDue    time.Time // when the watchdog expires
	unready    string    // why it is not ready
	obstacle   string    // what was seen to keep it from that
	inFlight   *int      // requests, as it said last
	says       string    // of itself
	told       bool      // it was sent the stop signal
	ended      bool      // its main process has ended
	rest       []remnant // what that has left behind, as far as it is known
	searched   bool      // what it has left behind was looked for, and told to stop
	exit       Exit
	fault      bool // grace ended it because it did not work
}

func (m *machine) newInstance(g *generation, slot, failures int) *instance {
	m.instance++
	i := &instance{id: m.instance, slot: slot, generation: g, since: m.at, failures: failures}
	m.instances[i.id] = i
	g.instances = append(g.instances, i)
	return i
}

func (m *machine) startInstance(i *instance) {
	m.enter(i, Starting, m.policy.ReadyTimeout)
	a := start{generation: i.generation.number, instance: i.id, slot: i.slot, mustNotify: m.notifying[i.generation.recipe.Executable]}
	if m.current != nil && i.generation.stage == StageCandidate {
		a.predecessor = m.current.number
	}
	m.do(a)
}

func (m *machine) enter(i *instance, phase Phase, limit time.Duration) {
	m.disarm(&i.timer)
	if i.phase == Starting && phase != Starting {
		m.do(dismiss{i.id})
	}
	i.phase, i.since = phase, m.at
	if limit > 0 {
		i.timer = m.arm(timer{instance: i.id}, limit)
		i.deadline = m.at.Add(limit)
	}
}

// drainInstance asks an instance to end.
func (m *machine) drainInstance(i *instance) {
	switch i.phase {
	case Backoff:
		m.exit(i)
	case Starting, Ready:
		m.enter(i, Draining, m.drainTime())
		if i.pid != 0 {
			m.tellToStop(i)
		}
	case Draining, Killing, Exited:
	}
	m.disarm(&i.watchdog)
}

func (m *machine) tellToStop(i *instance) {
	i.told = true
	if m.policy.StopGroup {
		m.do(tellGroup{i.id, m.policy.StopSignal})
		return
	}
	m.do(tell{i.id, m.policy.StopSignal})
}

// onWithdrawn gives an instance that ends by itself the time of a drain, and does
// not tell it to: a second signal would cut what it finishes. What its end means
// is decided when it has come.
func (m *machine) onWithdrawn(i *instance) {
	if i.phase != Starting && i.phase != Ready {
		return
	}
	m.enter(i, Draining, m.drainTime())
	m.disarm(&i.watchdog)
	m.say(report{level: warn, text: "instance stops by itself", generation: i.generation.number, instance: i.id, pid: i.pid, within: m.drainTime(), why: "it sent STOPPING=1"})
}

// account is what an instance says that it works on still, and what it has left behind.
func (i *instance) account() string {
	if i.ended {
		return listRest(i.rest)
	}
	if i.inFlight == nil {
		return ""
	}
	return fmt.Sprintf("%d requests in flight when it last said", *i.inFlight)
}

// kill ends an instance by force.
func (m *machine) kill(i *instance) {
	if i.phase == Exited {
		return
	}
	if i.phase == Backoff {
		m.exit(i)
		return
	}
	m.disarm(&i.watchdog)
	m.enter(i, Killing, killPatience)
	m.force(i)
}

func (m *machine) force(i *instance) {
	if i.pid == 0 {
		return
	}
	if m.mode == stopping || i.generation.stage == StageDraining {
		i.generation.forced = true
	}
	if m.mode == stopping && m.status == 0 {
		m.status = 128 + 9
	}
	m.do(kill{i.id})
}

func (m *machine) onStarted(i *instance, ev started) {
	i.pid, i.processes = ev.pid, 1
	m.say(report{level: info, text: "instance started", generation: i.generation.number, instance: i.id, pid: i.pid})
	m.remind(i)
}

func (m *machine) onStartFailed(i *instance, ev startFailed) {
	i.ended, i.exit = true, ev.exit
	m.lose(i, ev.exit.String())
	m.exit(i)
}

// onObstructed: what comes late is no reason any more.
func (m *machine) onObstructed(i *instance, ev obstructed) {
	if i.phase == Starting {
		i.obstacle = ev.why
	}
}

func (m *machine) onReadied(i *instance) {
	g := i.generation
	if i.phase != Starting || i.ended {
		return
	}
	took := m.at.Sub(i.since)
	g.touched, i.obstacle = true, ""
	m.enter(i, Ready, healthyAfter)
	m.watch(i)
	m.say(report{level: info, text: "instance ready", generation: g.number, instance: i.id, pid: i.pid, took: took})
	if g.stage == StageCandidate && g.ready() {
		m.promote(g)
	}
}

func (m *machine) onMoved(i *instance, ev moved) {
	i.pid = ev.pid
	i.processes++
	m.say(report{level: info, text: "main process moved", generation: i.generation.number, instance: i.id, pid: i.pid})
	m.remind(i)
}

// remind tells a new main process what the instance was told before it came.
func (m *machine) remind(i *instance) {
	switch i.phase {
	case Draining:
		m.tellToStop(i)
	case Killing:
		m.force(i)
	case Backoff, Starting, Ready, Exited:
	}
}

func (m *machine) onExited(i *instance, ev exited) {
	if ev.pid != i.pid || i.ended {
		return // it only launched the main process, or came after its end
	}
	i.ended, i.exit = true, ev.exit
	i.generation.ran = i.generation.ran || ev.exit.NotRun == ""
	m.disarm(&i.watchdog)
	m.reportExit(i)
	switch i.phase {
	case Starting, Ready:
		m.enter(i, Draining, m.drainTime())
		m.do(tellRest{instance: i.id, signal: m.policy.StopSignal, crashed: true})
	case Draining: // what it has left behind has what is left of the time
		m.tellRest(i)
	case Killing:
		m.do(tellRest{instance: i.id, signal: syscall.SIGKILL})
	case Backoff, Exited:
	}
	m.lose(i, joined("instance ended: "+ev.exit.String(), i.obstacle))
}

// unreadiness is all that is known of why it is not ready.
func (i *instance) unreadiness() string { return joined(i.unready, i.obstacle) }

func joined(reason, more string) string {
	if reason == "" || more == "" {
		return reason + more
	}
	return reason + "; " + more
}

func (m *machine) reportExit(i *instance) {
	r := report{level: info, text: "instance ended", generation: i.generation.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since), why: i.exit.String()}
	if i.phase == Starting || i.phase == Ready {
		r.level = warn
		if i.generation.stage == StageCurrent && !i.exit.Shortage {
			r.fact = FactCrashed
			m.crashes++
		}
	}
	m.say(r)
}

// lose decides what the end of an instance means for its generation.
func (m *machine) lose(i *instance, why string) {
	switch i.generation.stage {
	case StageCandidate:
		m.fail(i.generation, why, i.exit.Status())
	case StageCurrent:
		if before := m.settling(); before != nil && before.serves() {
			m.giveBack(i.generation, before, why)
			return
		}
		m.restart(i)
	case StageSettling, StageEmptying:
		m.dwindle(i)
	case StagePreparing, StageDraining, StageEnded:
	}
}

func (m *machine) restart(i *instance) {
	g := i.generation
	g.status = i.exit.Status()
	if !m.wantsRestart(i) {
		m.endIfDeserted()
		return
	}
	m.fill(i)
}

func (m *machine) wantsRestart(i *instance) bool {
	return m.policy.Restart.wants(i.fault || i.exit.Failed())
}

// fill has another instance take the place of one that has ended. A start that failed by
// no fault of the app's is told of once.
func (m *machine) fill(i *instance) {
	next, delay := m.succeed(i)
	if next.shortage == "" || next.shortage != i.shortage {
		m.tellRestart(next, delay, i.exit.String())
	}
}

// succeed gives the instance that takes the place of one that has ended, in so long. A start that
// failed by no fault of the app's is tried again soon, always.
func (m *machine) succeed(i *instance) (*instance, time.Duration) {
	next := m.newInstance(i.generation, i.slot, i.failures+1)
	delay := backoffAfter(i.failures)
	if i.exit.Shortage {
		next.failures, next.shortage, delay = i.failures, i.exit.String(), shortageRetry
	}
	next.timer = m.armJittered(timer{instance: next.id}, delay)
	return next, delay
}

func (m *machine) tellRestart(next *instance, delay time.Duration, why string) {
	m.restarts++
	m.say(report{level: warn, text: "restarting", fact: FactRestarting, generation: next.generation.number, instance: next.id, within: delay, why: why})
}

func (m *machine) onEmptied(i *instance, ev emptied) {
	m.do(reap{i.id, ev.pid})
	i.processes--
	if i.processes == 0 {
		m.exit(i)
	}
}

// exit is the end of an instance's life.
func (m *machine) exit(i *instance) {
	m.disarm(&i.timer)
	m.disarm(&i.watchdog)
	i.phase = Exited
	delete(m.instances, i.id)
	i.generation.remove(i)
	m.do(release{i.id})
	m.endIfEmpty(i.generation)
}

func (m *machine) onExtended(i *instance, ev extended) {
	deadline := m.at.Add(ev.by)
	if (i.phase == Starting || i.phase == Draining) && deadline.After(i.deadline) {
		since := i.since
		m.enter(i, i.phase, ev.by)
		i.since = since
	}
}
