package machine

import (
	"slices"
	"time"
)

// cutOver sends new connections to the current generation. Where each generation has sockets of its own, the one before
// it stays as it is until they have gone over: it can take over again, and is told nothing.
func (m *Machine) cutOver(before *generation) {
	if !m.policy.Steered {
		m.replace(before)
		return
	}
	if before != nil {
		before.enter(StageSettling, m.at)
		m.hold(before)
	}
	m.steerAnew()
}

// steerAnew sends new connections to the current generation, and their share to one beside it.
func (m *Machine) steerAnew() {
	to := Steer{Generation: m.current.Number}
	if g := m.sharing(); g != nil {
		to.Beside, to.Share = g.Number, g.Share
	}
	m.steer(to, steerPatience)
}

func (m *Machine) steer(to Steer, patience time.Duration) {
	m.cutovers++
	m.disarm(&m.cutover)
	m.cutover = m.arm(Timer{cutover: true}, patience)
	m.do(to)
}

// goesOver reports whether new connections are on their way to another generation.
func (m *Machine) goesOver() bool { return m.cutover.Number != 0 }

// step waits for the last of the answers: they come in the order of the cutovers.
func (ev Steered) step(m *Machine) {
	m.cutovers--
	if m.cutovers == 0 && m.goesOver() {
		m.endCutover(said(ev.Why))
	}
}

// endCutover goes on although new connections may not go where they are to go, if why says so, unless an upgrade can be
// undone.
func (m *Machine) endCutover(why Reason) {
	m.disarm(&m.cutover)
	m.tellUndone()
	defer m.answerPromotions()
	before := m.settling()
	switch {
	case m.mode == stopping:
		m.finishAll()
		return
	case m.sharing() != nil:
		m.endSharingCutover(m.sharing(), why)
		return
	case why != nil && before != nil && before.serves():
		m.giveBack(m.current, before, NotSteered{m.current.Number, why})
		return
	case why != nil:
		m.say(Report{Fact: SteeringFailed, Generation: m.current.Number, Why: why})
	}
	m.replace(before)
}

func (m *Machine) endSharingCutover(g *generation, why Reason) {
	if why != nil {
		m.fail(g, NotSteered{g.Number, why}, StatusFailure)
		return
	}
	m.tellStep(g)
}

// replace goes on with an upgrade once new connections go to the current generation.
func (m *Machine) replace(before *generation) {
	m.tellReady(m.current)
	if before != nil {
		m.relieve(before)
	}
	if m.settling() == nil {
		m.conclude(m.current, OutcomeUpgraded, nil)
	}
}

// relieve is for the generation that gets no new connections any more. It is told to stop, unless
// each generation has sockets of its own, and none that all share: then connections can be sent back to it
// while the successor settles, and after that it finishes what it has, which an
// app that dies of its stop signal would cut. One that has both goes on accepting what is its
// successor's, so it is told as soon as nothing waits in the queues that are its own.
func (m *Machine) relieve(g *generation) {
	m.disarm(&g.leaveBy)
	switch {
	case !m.emptiesFirst(g):
		m.close(g)
	case m.policy.Shared || !g.serves():
		m.empty(g)
	case m.policy.Settle == 0:
		m.settled(g)
	default:
		m.announce(g)
		m.say(Report{Fact: GenerationReplaced, Generation: g.Named(), Within: m.policy.Settle, Why: SuccessorMayFail})
		g.leaveBy = m.arm(Timer{leaving: g.Number}, m.policy.Settle)
	}
}

// hold: what was to be started again has a successor now. It is kept, to be started at
// once when it is wanted.
func (m *Machine) hold(g *generation) {
	for _, i := range g.backoffs() {
		m.disarm(&i.timer)
	}
}

// startHeld starts what is held, but for what has crashed so often that it is to wait still.
func (m *Machine) startHeld(g *generation, why Reason) {
	for _, i := range g.held() {
		m.startAtOnce(i, why)
	}
}

func (m *Machine) startAtOnce(i *instance, why Reason) {
	m.tellRestart(i, 0, why)
	m.startInstance(i)
}

// settling is the generation that can take over again, or nil.
func (m *Machine) settling() *generation {
	for _, g := range m.generations {
		if g.Stage == StageSettling {
			return g
		}
	}
	return nil
}

// undone is an upgrade that is to be undone.
type undone struct {
	generation *generation
	report     Report
}

// giveBack undoes an upgrade whose generation does not serve as it should. What that
// has accepted it can finish.
func (m *Machine) giveBack(g, before *generation, why Reason) {
	m.disarm(&before.leaveBy)
	before.enter(StageCurrent, m.at)
	m.current = before
	m.recall(before)
	m.undo(g, before, why)
	m.startHeld(before, GenerationReturned)
}

// undo sends all new connections to the generation that is to serve on.
func (m *Machine) undo(g, serving *generation, why Reason) {
	g.failure = why
	m.undone = &undone{g, Report{Fact: undoneFact(why), Generation: g.Named(), Serving: serving.Number, Took: m.at.Sub(g.Since), Why: why}}
	m.steerAnew()
	m.leave(g)
}

func undoneFact(why Reason) Fact {
	if why == AskedBack {
		return RolledBack
	}
	return UpgradeUndone
}

// tellUndone comes when the generation before serves again.
func (m *Machine) tellUndone() {
	if u := m.undone; u != nil {
		m.undone = nil
		m.say(u.report)
		m.conclude(u.generation, OutcomeUndone, u.report.Why)
		m.answerBack()
	}
}

// endSettling is for a generation that takes over no more.
func (m *Machine) endSettling(g *generation) {
	m.empty(g)
	m.conclude(m.current, OutcomeUpgraded, nil)
}

// empty waits until nothing goes on in a generation that gets nothing new.
func (m *Machine) empty(g *generation) {
	m.disarm(&g.leaveBy)
	g.enter(StageEmptying, m.at)
	g.Emptying = m.at
	m.announce(g)
	g.leaveBy = m.arm(Timer{leaving: g.Number}, m.emptyTime())
	m.observe(g)
	m.say(Report{Fact: g.fact(GenerationEmptying), Generation: g.Named(), Within: m.policy.DrainTimeout, Why: m.emptiesUntil(g)})
	g.progress = m.arm(Timer{generation: g.Number}, firstProgress)
}

// emptyTime is short where all clients wait for what comes next.
func (m *Machine) emptyTime() time.Duration {
	if m.gap.IsZero() {
		return m.policy.emptyTime()
	}
	return min(m.policy.emptyTime(), whileAllWait)
}

// emptiesUntil is what a generation that empties is told to stop for.
func (m *Machine) emptiesUntil(g *generation) Reason {
	switch {
	case !g.serves():
		return StartsWhenAwaited
	case m.policy.Shared:
		return StopsWhenAccepted
	case m.policy.Empty < m.policy.DrainTimeout:
		return StopsWhenIdleOr{m.policy.Empty}
	}
	return StopsWhenIdle
}

// emptiesFirst reports whether the generation has sockets that nobody else serves, so that it
// can finish what it has before it is told to stop.
func (m *Machine) emptiesFirst(g *generation) bool {
	return m.policy.Steered && (!m.policy.Shared || g.Opened) && m.answers(g)
}

// answers reports whether the generation accepts what waits in its queues, or can be started again
// to do so: that is not done at a stop.
func (m *Machine) answers(g *generation) bool {
	return g.serves() || g.starts() && m.mode < stopping
}

// emptyToStop empties a generation that has no successor, unless it is emptying already.
func (m *Machine) emptyToStop(g *generation) {
	if m.current == g {
		m.current = nil
	}
	if g.Stage != StageEmptying {
		m.empty(g)
	}
}

// observe: what waits in a queue is waited for also when --empty is over, as an app
// that closes its listener resets it.
func (m *Machine) observe(g *generation) { m.do(Observe{g.Number, g.pids(), m.idleTime(g)}) }

// idleTime is how long it is yet waited until nothing goes on in a generation's connections.
func (m *Machine) idleTime(g *generation) time.Duration {
	if m.policy.Shared {
		return 0
	}
	idle := m.policy.Empty
	if !m.gap.IsZero() {
		idle = min(idle, whileAllWait)
	}
	return max(0, idle-m.at.Sub(g.Since))
}

// step looks again where processes have come that were not looked at.
func (ev Quieted) step(m *Machine) {
	g := m.find(ev.Generation)
	if g == nil || g.Stage != StageEmptying {
		return
	}
	unseen := func(pid int) bool { return !slices.Contains(ev.PIDs, pid) }
	if slices.ContainsFunc(g.pids(), unseen) {
		m.observe(g)
		return
	}
	if m.idleTime(g) > 0 { // otherwise only the queues were looked at
		g.InFlight = 0
	}
	m.close(g)
}

// step: who waits is answered by the generation that he has come to, as no other can
// accept what is in its queues.
func (ev Awaited) step(m *Machine) {
	if g := m.find(ev.Generation); g != nil && g.Stage == StageEmptying && m.mode < stopping {
		m.startHeld(g, ConnectionsWait)
	}
}

func (m *Machine) expireRelief(g *generation) {
	switch g.Stage {
	case StageSharing:
		m.advance(g)
	case StageSettling:
		m.settled(g)
		m.conclude(m.current, OutcomeUpgraded, nil)
	case StageWarm:
		m.empty(g)
	case StageEmptying:
		if m.revive(g) {
			return
		}
		m.say(Report{Fact: EmptyTimedOut, Generation: g.Named(), Took: m.at.Sub(g.Since), Why: InFlightWhenCounted{g.InFlight}})
		if g.InFlight > 0 {
			g.ending = StoppedInFlight{g.InFlight}
		}
		m.close(g)
	case StageClosing:
		m.expireClosing(g)
	case StagePreparing, StageCandidate, StageCurrent, StageDraining, StageEnded:
	}
}

// loseReplaced: nothing is started again in a generation that has a successor, unless it takes over
// again, or somebody waits for it.
func (m *Machine) loseReplaced(i *instance) {
	g := i.generation
	if g.failure == nil && m.wantsRestart(i) {
		m.succeed(i)
	}
	settled := g.Stage == StageSettling
	switch {
	case !m.answers(g):
		m.drainGeneration(g)
	case g.Stage < StageEmptying && !g.serves():
		m.empty(g)
	}
	if settled && g.Stage != StageSettling && !m.goesOver() {
		m.conclude(m.current, OutcomeUpgraded, nil)
	}
}
