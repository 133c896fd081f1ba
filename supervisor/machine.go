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
	waiting     bool // an upgrade is wanted
	waitingTold bool // and the log says why it waits
	served      bool // some generation was ready once
	notifying   map[string]bool
	delay       timer
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
	m.upgrade()
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
		m.onUpgradeRequested()
	case stopRequested:
		m.onStopRequested()
	case killRequested:
		m.onKillRequested()
	case signalReceived:
		m.onSignalReceived(ev)
	case prepared:
		m.onPrepared(ev)
	case prepareFailed:
		m.onPrepareFailed(ev)
	case counted:
		m.onCounted(ev)
	case revived:
		m.onRevived(ev)
	case noticed:
		m.say(report{level: warn, text: ev.text, why: ev.why})
	case timerExpired:
		m.onTimerExpired(ev.timer)
	default:
		m.stepInstance(ev)
	}
	m.settle()
	return m.actions
}

// stepInstance takes the events of one instance. One that is unknown has exited,
// and nothing that comes late matters any more.
func (m *machine) stepInstance(ev event) {
	if ev, ok := ev.(moved); ok {
		m.do(follow{ev.instance, ev.process})
	}
	i := m.instances[instanceOf(ev)]
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
	case unreadied:
		i.unready = ev.why
	case readied:
		m.onReadied(i, ev)
	case moved:
		m.onMoved(i, ev)
	case exited:
		m.onExited(i, ev)
	case emptied:
		m.onEmptied(i, ev)
	case extended:
		m.onExtended(i, ev)
	case pinged:
		m.onPinged(i)
	case fellBack:
		m.say(report{level: warn, text: "cannot see readiness, waiting for --ready-delay instead", generation: i.generation.number, instance: i.id, why: ev.why})
	case described:
		m.say(report{level: debug, text: "app says", generation: i.generation.number, instance: i.id, why: ev.text})
	default:
		panic(fmt.Sprintf("supervisor: event %T is not decided", ev))
	}
}

func instanceOf(ev event) int {
	switch ev := ev.(type) {
	case started:
		return ev.instance
	case startFailed:
		return ev.instance
	case touched:
		return ev.instance
	case unreadied:
		return ev.instance
	case readied:
		return ev.instance
	case moved:
		return ev.instance
	case exited:
		return ev.instance
	case emptied:
		return ev.instance
	case extended:
		return ev.instance
	case pinged:
		return ev.instance
	case described:
		return ev.instance
	case fellBack:
		return ev.instance
	}
	panic(fmt.Sprintf("supervisor: event %T is not decided", ev))
}

// Requests.

func (m *machine) onUpgradeRequested() {
	if m.mode != running {
		m.say(report{level: warn, text: "upgrade refused", why: "grace is stopping"})
		return
	}
	if m.policy.NoUpgrade != "" {
		m.say(report{level: warn, text: "upgrade refused", why: m.policy.NoUpgrade})
		return
	}
	if !m.waiting {
		m.waiting, m.waitingTold = true, false
	}
}

func (m *machine) onStopRequested() {
	switch m.mode {
	case running:
		m.say(report{level: info, text: "stopping", within: m.policy.DrainTimeout})
		m.linger()
	case lingering, stopping:
		m.say(report{level: warn, text: "stopping at once", why: "told to stop a second time"})
		m.killAll()
	case done:
	}
}

// linger serves on for load balancers that are slow to notice. Before the first
// generation is ready there is nothing to go on with.
func (m *machine) linger() {
	if m.policy.DrainDelay == 0 || m.current == nil {
		m.stop()
		return
	}
	m.mode, m.waiting = lingering, false
	if m.candidate != nil {
		m.drainGeneration(m.candidate)
	}
	m.delay = m.arm(timer{}, m.policy.DrainDelay)
	m.say(report{level: info, text: "serving on before the drain", within: m.policy.DrainDelay})
}

func (m *machine) stop() {
	m.mode, m.waiting = stopping, false
	m.disarm(&m.delay)
	for _, g := range slices.Clone(m.generations) {
		if g.stage != StageDraining {
			m.drainGeneration(g)
		}
	}
}

func (m *machine) onKillRequested() {
	m.say(report{level: warn, text: "stopping at once"})
	m.killAll()
}

func (m *machine) killAll() {
	m.mode = stopping
	for _, g := range slices.Clone(m.generations) {
		for _, i := range slices.Clone(g.instances) {
			m.kill(i)
		}
	}
	m.stop()
}

// A signal that grace does not know is the app's: of the generation in service,
// or of the first one before that.
func (m *machine) onSignalReceived(ev signalReceived) {
	g := m.current
	if g == nil {
		g = m.candidate
	}
	if g == nil {
		return
	}
	for _, i := range g.instances {
		if i.pid != 0 && !i.ended {
			m.do(tell{i.id, ev.signal})
		}
	}
}

// Upgrades.

// settle does what may have become possible: the upgrade that waited, the end.
func (m *machine) settle() {
	if m.mode == running && m.waiting && m.candidate == nil {
		m.tryUpgrade()
	}
	if m.mode == stopping && len(m.generations) == 0 {
		m.mode = done
		m.do(finish{m.status})
	}
	if m.waiting && !m.waitingTold {
		m.waitingTold = true
		m.say(report{level: info, text: "upgrade waits", why: "another one is under way"})
	}
}

func (m *machine) tryUpgrade() {
	draining := 0
	for _, g := range m.generations {
		if g.stage == StageDraining {
			draining++
		}
	}
	if draining < m.policy.MaxDraining {
		m.upgrade()
		return
	}
	if !m.waitingTold {
		m.waitingTold = true
		m.say(report{level: info, text: "upgrade waits", why: fmt.Sprintf("%d generations still drain (--max-draining)", draining)})
	}
}

func (m *machine) upgrade() {
	m.waiting = false
	m.generation++
	g := &generation{number: m.generation, stage: StagePreparing, since: m.at, born: m.at, preparing: true}
	m.generations = append(m.generations, g)
	m.candidate = g
	m.do(prepare{g.number})
}

func (m *machine) find(generation int) *generation {
	for _, g := range m.generations {
		if g.number == generation {
			return g
		}
	}
	return nil
}

func (m *machine) onPrepared(ev prepared) {
	g := m.find(ev.generation)
	if g == nil || !g.preparing {
		return
	}
	g.preparing, g.executable = false, ev.executable
	if g.stage == StageDraining {
		m.endIfEmpty(g)
		return
	}
	g.enter(StageCandidate, m.at)
	for slot := range m.policy.Instances {
		i := m.newInstance(g, slot, 0)
		m.startInstance(i)
	}
}

func (m *machine) onPrepareFailed(ev prepareFailed) {
	g := m.find(ev.generation)
	if g == nil || !g.preparing {
		return
	}
	g.preparing = false
	if g.stage == StageDraining {
		m.endIfEmpty(g)
		return
	}
	m.fail(g, ev.why, ev.status)
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
	a := start{generation: i.generation.number, instance: i.id, slot: i.slot, mustNotify: m.notifying[i.generation.executable]}
	if m.current != nil && m.current != i.generation {
		a.predecessor = m.current.number
	}
	m.do(a)
}

// fail ends a candidate. What it may have accepted already it can finish: it is
// told to drain, as any other, and can never be promoted after that.
func (m *machine) fail(g *generation, why string, status int) {
	g.failure = why
	if !m.served {
		m.failFirst(g, why, status)
		return
	}
	text := "upgrade failed"
	if m.current != nil {
		text = fmt.Sprintf("upgrade failed, generation %d still serves", m.current.number)
	}
	m.say(report{level: failure, text: text, generation: g.number, took: m.at.Sub(g.born), why: why})
	m.drainGeneration(g)
	m.endIfDeserted()
}

// failFirst: a service manager has to see at once that nothing works.
func (m *machine) failFirst(g *generation, why string, status int) {
	if m.policy.Held && !g.touched {
		why += "; the app seems to bind by itself: nothing was seen waiting on the --listen sockets (leave --listen out, or choose a --dialect that the app knows)"
	}
	m.status = status
	m.say(report{level: failure, text: "first generation failed", generation: g.number, took: m.at.Sub(g.born), why: why})
	m.stop()
}

func (m *machine) promote(g *generation) {
	old := m.current
	m.current, m.candidate, m.served = g, nil, true
	g.enter(StageCurrent, m.at)
	m.say(report{level: info, text: "generation ready", generation: g.number, took: m.at.Sub(g.born)})
	if old != nil {
		m.drainGeneration(old)
	}
}

// leave has a generation drain.
func (m *machine) drainGeneration(g *generation) {
	g.enter(StageDraining, m.at)
	if m.candidate == g {
		m.candidate = nil
	}
	if m.current == g && m.mode == stopping {
		m.current = nil
	}
	if g.preparing {
		m.do(abandon{g.number})
	}
	for _, i := range slices.Clone(g.instances) {
		m.drainInstance(i)
	}
	if g.alive() {
		m.say(report{level: info, text: "generation draining", generation: g.number, within: m.policy.DrainTimeout})
		g.progress = m.arm(timer{generation: g.number}, firstProgress)
	}
	m.endIfEmpty(g)
}

func (m *machine) endIfEmpty(g *generation) {
	if g.stage != StageDraining || g.preparing || len(g.instances) > 0 {
		return
	}
	spent := g.enter(StageEnded, m.at)
	m.disarm(&g.progress)
	m.generations = slices.DeleteFunc(m.generations, func(other *generation) bool { return other == g })
	if m.current == g {
		m.current = nil
	}
	m.do(retire{g.number})
	m.reportEnd(g, spent)
}

func (m *machine) reportEnd(g *generation, spent time.Duration) {
	r := report{level: info, text: "generation ended", generation: g.number, took: spent, why: "drained"}
	if g.forced {
		r.level, r.why = warn, fmt.Sprintf("killed, with %d connections in flight when last counted", g.inFlight)
	}
	m.say(r)
}

// endIfDeserted ends grace when nothing serves, starts or is going to.
func (m *machine) endIfDeserted() {
	if m.mode > lingering || m.candidate != nil || m.waiting || m.current == nil {
		return
	}
	if m.current.alive() {
		return
	}
	m.status = m.current.status
	m.say(report{level: info, text: "the app has ended", generation: m.current.number, why: "--restart " + string(m.policy.Restart)})
	m.stop()
}

// Instances.

func (m *machine) enter(i *instance, phase Phase, limit time.Duration) {
	m.disarm(&i.timer)
	i.phase, i.since = phase, m.at
	if limit > 0 {
		i.timer = m.arm(timer{instance: i.id}, limit)
		i.deadline = m.at.Add(limit)
	}
}

// drain asks an instance to end.
func (m *machine) drainInstance(i *instance) {
	switch i.phase {
	case Backoff:
		m.exit(i)
	case Starting, Ready:
		m.enter(i, Draining, m.policy.DrainTimeout)
		if i.pid != 0 {
			m.do(tell{i.id, m.policy.StopSignal})
		}
	case Draining, Killing, Exited:
	}
	m.disarm(&i.watchdog)
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
	i.generation.forced = true
	if m.mode == stopping && m.status == 0 {
		m.status = 128 + 9
	}
	m.do(kill{i.id})
}

func (m *machine) onStarted(i *instance, ev started) {
	i.pid, i.processes = ev.pid, 1
	m.say(report{level: info, text: "instance started", generation: i.generation.number, instance: i.id, pid: i.pid})
	switch i.phase {
	case Draining:
		m.do(tell{i.id, m.policy.StopSignal})
	case Killing:
		m.force(i)
	case Backoff, Starting, Ready, Exited:
	}
}

func (m *machine) onStartFailed(i *instance, ev startFailed) {
	i.ended, i.exit = true, ev.exit
	m.lose(i, ev.exit.String())
	m.exit(i)
}

func (m *machine) onReadied(i *instance, ev readied) {
	g := i.generation
	if ev.notified && g.executable != "" {
		m.notifying[g.executable] = true
	}
	if i.phase != Starting || i.ended {
		return
	}
	took := m.at.Sub(i.since)
	g.touched = true
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
	switch i.phase {
	case Draining:
		m.do(tell{i.id, m.policy.StopSignal})
	case Killing:
		m.force(i)
	case Backoff, Starting, Ready, Exited:
	}
}

func (m *machine) onExited(i *instance, ev exited) {
	if ev.pid != i.pid {
		return // it only launched the main process
	}
	i.ended, i.exit = true, ev.exit
	m.disarm(&i.watchdog)
	m.reportExit(i)
	switch i.phase {
	case Starting, Ready:
		m.enter(i, Draining, m.policy.DrainTimeout)
		m.do(tellRest{i.id, m.policy.StopSignal})
	case Draining, Killing:
		// The rest of its group has what is left of the time.
	case Backoff, Exited:
	}
	m.lose(i, "instance ended: "+ev.exit.String())
}

func (m *machine) reportExit(i *instance) {
	r := report{level: info, text: "instance ended", generation: i.generation.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since), why: i.exit.String()}
	if i.phase == Starting || i.phase == Ready {
		r.level = warn
	}
	m.say(r)
}

// lose decides what the end of an instance means for its generation.
func (m *machine) lose(i *instance, why string) {
	switch i.generation.stage {
	case StageCandidate:
		m.fail(i.generation, why, i.exit.Status())
	case StageCurrent:
		m.restart(i)
	case StagePreparing, StageDraining, StageEnded:
	}
}

func (m *machine) restart(i *instance) {
	g := i.generation
	g.status = i.exit.Status()
	if !m.policy.Restart.wants(i.fault || i.exit.Failed()) {
		m.endIfDeserted()
		return
	}
	next := m.newInstance(g, i.slot, i.failures+1)
	next.timer = m.armJittered(timer{instance: next.id}, backoff(i.failures))
	m.say(report{level: warn, text: "restarting", generation: g.number, instance: next.id, within: backoff(i.failures), why: i.exit.String()})
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

// The watchdog.

func (m *machine) watch(i *instance) {
	if m.policy.Watchdog > 0 && i.phase == Ready {
		m.disarm(&i.watchdog)
		i.watchdog = m.arm(timer{watchdog: i.id}, m.policy.Watchdog)
	}
}

func (m *machine) onPinged(i *instance) {
	if i.watchdog.number != 0 {
		m.watch(i)
	}
}

// Timers.

func (m *machine) arm(t timer, after time.Duration) timer {
	m.timers++
	t.number = m.timers
	m.do(arm{timer: t, after: after})
	return t
}

func (m *machine) armJittered(t timer, after time.Duration) timer {
	m.timers++
	t.number = m.timers
	m.do(arm{timer: t, after: after, jittered: true})
	return t
}

func (m *machine) disarm(t *timer) {
	if t.number != 0 {
		m.do(disarm{*t})
		*t = timer{}
	}
}

func (m *machine) onTimerExpired(t timer) {
	switch {
	case t.instance != 0:
		if i := m.instances[t.instance]; i != nil && i.timer == t {
			i.timer = timer{}
			m.expire(i)
		}
	case t.watchdog != 0:
		if i := m.instances[t.watchdog]; i != nil && i.watchdog == t {
			i.watchdog = timer{}
			m.hang(i)
		}
	case t.generation != 0:
		if g := m.find(t.generation); g != nil && g.progress == t {
			g.progress = m.arm(timer{generation: g.number}, nextProgress)
			m.do(count{g.number})
		}
	case m.delay == t && m.mode == lingering:
		m.delay = timer{}
		m.stop()
	}
}

// expire acts on the end of a phase's time.
func (m *machine) expire(i *instance) {
	switch i.phase {
	case Backoff:
		m.startInstance(i)
	case Starting:
		m.expireStart(i)
	case Ready:
		i.failures = 0
	case Draining:
		m.say(report{level: warn, text: "gave up draining, killing", generation: i.generation.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since)})
		m.kill(i)
	case Killing:
		m.say(report{level: failure, text: "killed, but still there", generation: i.generation.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since)})
		m.enter(i, Killing, killPatience)
		m.force(i)
	case Exited:
	}
}

func (m *machine) expireStart(i *instance) {
	why := fmt.Sprintf("instance %d (pid %d) was not ready within %s", i.id, i.pid, m.policy.ReadyTimeout)
	if i.unready != "" {
		why += ": " + i.unready
	}
	if i.generation.stage == StageCandidate {
		m.fail(i.generation, why, statusNotReady)
		return
	}
	m.say(report{level: warn, text: "restarted instance is not ready", generation: i.generation.number, instance: i.id, pid: i.pid, why: why})
	i.fault = true
	m.drainInstance(i)
}

// hang treats an app that gives no sign of life as a crashed one.
func (m *machine) hang(i *instance) {
	m.say(report{level: failure, text: "watchdog: no sign of life", generation: i.generation.number, instance: i.id, pid: i.pid, within: m.policy.Watchdog})
	i.fault = true
	m.kill(i)
}

// What is told.

func (m *machine) onCounted(ev counted) {
	g := m.find(ev.generation)
	if g == nil {
		return
	}
	g.inFlight = ev.inFlight
	m.say(report{level: info, text: drainProgress(ev), generation: g.number, took: m.at.Sub(g.since), why: ev.why})
}

func drainProgress(ev counted) string {
	if ev.why != "" {
		return "draining (connections in flight cannot be counted)"
	}
	return fmt.Sprintf("draining (%d connections in flight)", ev.inFlight)
}

func (m *machine) onRevived(ev revived) {
	why := "an app shut it down; connections in its queue were reset"
	for _, g := range m.generations {
		if g.stage == StageDraining {
			why = fmt.Sprintf("generation %d shut it down as it drained; connections in its queue were reset", g.number)
		}
	}
	if ev.why != "" {
		m.say(report{level: failure, text: fmt.Sprintf("listener %s is dead", ev.listener), why: ev.why})
		return
	}
	m.say(report{level: warn, text: fmt.Sprintf("listener %s revived", ev.listener), why: why})
	if ev.replaced {
		m.say(report{level: warn, text: "upgrading", why: "only a new generation has the new socket"})
		m.onUpgradeRequested()
	}
}

func (m *machine) do(a action) { m.actions = append(m.actions, a) }

func (m *machine) say(r report) { m.do(r) }
