package machine

import (
	"slices"
	"time"
)

func (ev UpgradeRequested) step(m *Machine) {
	if why := m.refusal(ev); why != nil {
		m.refuse(asker(ev.Request), why)
		return
	}
	if ev.Rollback && m.turnBack(ev.Request) {
		return
	}
	newer := &pendingUpgrade{requests: asker(ev.Request), command: ev.Command, rollback: ev.Rollback, canary: ev.Canary, surge: ev.MaxSurge}
	if m.pending == nil {
		m.pending = newer
		return
	}
	if newer.joins(m.pending) {
		m.pending.requests = append(m.pending.requests, newer.requests...)
		return
	}
	m.say(Report{Fact: UpgradeSuperseded, Why: LaterRequest})
	m.answerAll(m.pending.requests, Result{Outcome: OutcomeSuperseded, Why: LaterRequest})
	m.pending = newer
}

// asker is who waits for an answer: nobody, if the request was a signal.
func asker(request int) []int {
	if request == 0 {
		return nil
	}
	return []int{request}
}

func (m *Machine) refusal(ev UpgradeRequested) Reason {
	switch {
	case m.mode != running:
		return GraceStopping
	case m.policy.NoUpgrade != nil:
		return m.policy.NoUpgrade
	case (ev.Canary != nil || m.policy.Canary != nil && !ev.Rollback) && m.current != nil && (!m.policy.Steered || m.policy.Shared):
		return NeedsOwnSockets
	case ev.Rollback && !m.hasPrevious():
		return NoPrevious
	}
	return nil
}

func (m *Machine) hasPrevious() bool {
	return m.sharing() != nil || m.current != nil && m.current.Before != nil
}

func (m *Machine) refuse(requests []int, why Reason) {
	m.say(Report{Fact: UpgradeRefused, Why: why})
	m.answerAll(requests, Result{Outcome: OutcomeRefused, Why: why})
}

// forget refuses what waits.
func (m *Machine) forget() {
	if m.reexec != nil {
		m.refuseReexec(m.reexec.requests)
		m.reexec = nil
	}
	if m.scaling != nil {
		m.answerAll(m.scaling.requests, Result{Outcome: OutcomeRefused, Why: GraceStopping})
		m.scaling = nil
	}
	if m.pending != nil {
		m.refuse(m.pending.requests, GraceStopping)
		m.pending = nil
	}
}

// sameStop is how long further stop signals are taken for the one that came first: timeout(1) and npm pass on what the
// terminal, or they themselves, have sent to the whole process group.
const sameStop = 500 * time.Millisecond

func (ev StopRequested) step(m *Machine) {
	m.stoppers = append(m.stoppers, asker(ev.Request)...)
	again := !m.told.IsZero()
	if !again {
		m.told = m.at
	}
	switch {
	case m.mode == running:
		m.say(Report{Fact: Stopping, Within: m.policy.DrainTimeout})
		m.linger()
	case ev.Request != 0:
		// Who asks waits along; only a signal that is sent twice is impatient.
	case again && m.at.Sub(m.told) >= sameStop:
		m.say(Report{Fact: StopRepeated, Why: AskedTwice})
		m.killAll()
	}
}

// linger serves on for load balancers that are slow to notice. Before the first
// generation is ready there is nothing to go on with.
func (m *Machine) linger() {
	if m.policy.DrainDelay == 0 || m.current == nil {
		m.stop()
		return
	}
	m.mode = lingering
	m.forget()
	m.giveUpCandidate()
	m.delay = m.arm(Timer{}, m.policy.DrainDelay)
	m.say(Report{Fact: ServingBeforeDrain, Within: m.policy.DrainDelay})
}

func (m *Machine) giveUpCandidate() {
	switch g := m.candidate; {
	case g == nil:
	case g == m.rolling: // it serves on, as it is, beside the old one
		m.conclude(g, OutcomeFailed, GraceStopping)
	case g.Of != 0:
		m.fail(g, GraceStopping, StatusFailure)
	case g.Stage == StageSharing:
		m.retract(g, GraceStopping)
	default:
		m.conclude(g, OutcomeFailed, GraceStopping)
		m.drainGeneration(g)
	}
}

// stop has every generation finish what it has, and end. Who has sockets of his own gets
// nothing new from now on, and is told to stop once he has accepted and answered what he got.
func (m *Machine) stop() {
	m.beginEnd()
	for _, g := range m.generations {
		m.cutShort(g)
	}
	if !m.policy.Steered {
		m.finishAll()
		return
	}
	m.steer(Steer{}, stopPatience)
	for _, g := range slices.Clone(m.generations) {
		m.endWaiting(g)
	}
}

// endWaiting ends what only waits in a generation when all of grace stops, and one that does not serve yet.
func (m *Machine) endWaiting(g *generation) {
	if g.Stage < StageSharing {
		m.drainGeneration(g)
		return
	}
	if g.Stage <= StageWarm {
		m.disarm(&g.leaveBy)
	}
	for _, i := range g.backoffs() {
		m.exit(i)
	}
}

// finishAll comes when no generation gets new connections any more.
func (m *Machine) finishAll() {
	for _, g := range slices.Clone(m.generations) {
		switch {
		case g.Stage == StageDraining, g.Stage == StageClosing:
		case m.emptiesFirst(g):
			m.emptyToStop(g)
		default:
			m.close(g)
		}
	}
}

func (m *Machine) beginEnd() {
	m.mode = stopping
	m.part()
	m.tellUndone()
	m.leaveForeign()
	if m.sharing() != nil {
		m.candidate = nil
	}
	m.forget()
	m.rolling, m.replacements = nil, nil
	m.answerAll(m.back, Result{Outcome: OutcomeFailed, Why: GraceStopping})
	m.back = nil
	m.leavePromotions(Result{Outcome: OutcomeFailed, Why: GraceStopping})
	m.disarm(&m.delay)
	m.disarm(&m.cutover)
}

// cutShort answers who waits for a generation when all of grace stops.
func (m *Machine) cutShort(g *generation) {
	if g.Stage == StageCurrent {
		m.conclude(g, OutcomeUpgraded, nil)
		return
	}
	m.conclude(g, OutcomeFailed, GraceStopping)
}

func (ev KillRequested) step(m *Machine) {
	m.stoppers = append(m.stoppers, asker(ev.Request)...)
	m.say(Report{Fact: StoppingAtOnce})
	m.killAll()
}

func (m *Machine) killAll() {
	m.beginEnd()
	for _, g := range slices.Clone(m.generations) {
		for _, i := range slices.Clone(g.instances) {
			m.kill(i)
		}
	}
	for _, g := range slices.Clone(m.generations) {
		m.cutShort(g)
		if g.Stage != StageDraining {
			m.drainGeneration(g)
		}
	}
	m.keeping = 0
}

// A signal that grace does not know is the app's: of the generation in service,
// or of the first one before that.
func (ev SignalReceived) step(m *Machine) {
	g := m.current
	if g == nil {
		g = m.candidate
	}
	told := 0
	for _, i := range g.signalled() {
		m.do(Tell{i.ID, ev.Signal})
		told++
	}
	if told == 0 {
		m.answerAll(asker(ev.Request), Result{Outcome: OutcomeRefused, Why: NothingRuns})
		return
	}
	m.answerAll(asker(ev.Request), Result{Outcome: OutcomeSignalled, Generation: g.Number})
}

// signalled are the instances that have a main process; a generation that is nil has none.
func (g *generation) signalled() (running []*instance) {
	if g == nil {
		return nil
	}
	for _, i := range g.instances {
		if i.PID != 0 && !i.Ended {
			running = append(running, i)
		}
	}
	return running
}
