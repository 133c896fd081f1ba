package supervisor

import (
	"slices"
	"time"
)

func (m *machine) onUpgradeRequested(ev upgradeRequested) {
	if why := m.refusal(ev); why != "" {
		m.refuse(asker(ev.request), why)
		return
	}
	newer := &wish{requests: asker(ev.request), command: ev.command, rollback: ev.rollback}
	if m.wish == nil {
		m.wish = newer
		return
	}
	if newer.joins(m.wish) {
		m.wish.requests = append(m.wish.requests, newer.requests...)
		return
	}
	const why = "a later request asks for something else"
	m.say(report{level: info, text: "upgrade superseded", fact: FactSuperseded, why: why})
	m.answerAll(m.wish.requests, result{outcome: OutcomeSuperseded, why: why})
	m.wish = newer
}

// asker is who waits for an answer: nobody, if the request was a signal.
func asker(request int) []int {
	if request == 0 {
		return nil
	}
	return []int{request}
}

func (m *machine) refusal(ev upgradeRequested) string {
	switch {
	case m.mode != running:
		return "grace is stopping"
	case m.policy.NoUpgrade != "":
		return m.policy.NoUpgrade
	case ev.rollback && !m.hasPrevious():
		return noPrevious
	}
	return ""
}

const noPrevious = "nothing else has served before the current generation"

func (m *machine) hasPrevious() bool { return m.current != nil && m.current.before != nil }

func (m *machine) refuse(requests []int, why string) {
	m.say(report{level: warn, text: "upgrade refused", fact: FactRefused, why: why})
	m.answerAll(requests, result{outcome: OutcomeRefused, why: why})
}

// forget refuses what waits.
func (m *machine) forget() {
	if m.relay != nil {
		m.refuseReexec(m.relay.requests)
		m.relay = nil
	}
	if m.wish != nil {
		m.refuse(m.wish.requests, "grace is stopping")
		m.wish = nil
	}
}

// sameStop is how long further stop signals are taken for the one that came first: timeout(1) and npm pass on what the
// terminal, or they themselves, have sent to the whole process group.
const sameStop = 500 * time.Millisecond

func (m *machine) onStopRequested(ev stopRequested) {
	m.stoppers = append(m.stoppers, asker(ev.request)...)
	again := !m.told.IsZero()
	if !again {
		m.told = m.at
	}
	switch {
	case m.mode == running:
		m.say(report{level: info, text: "stopping", fact: FactStopping, within: m.policy.DrainTimeout})
		m.linger()
	case ev.request != 0:
		// Who asks waits along; only a signal that is sent twice is impatient.
	case again && m.at.Sub(m.told) >= sameStop:
		m.say(report{level: warn, text: "stopping at once", why: "told to stop a second time"})
		m.killAll()
	}
}

// linger serves on for load balancers that are slow to notice. Before the first
// generation is ready there is nothing to go on with.
func (m *machine) linger() {
	if m.policy.DrainDelay == 0 || m.current == nil {
		m.stop()
		return
	}
	m.mode = lingering
	m.forget()
	if m.candidate != nil {
		m.conclude(m.candidate, OutcomeFailed, "grace is stopping")
		m.drainGeneration(m.candidate)
	}
	m.delay = m.arm(timer{}, m.policy.DrainDelay)
	m.say(report{level: info, text: "serving on before the drain", within: m.policy.DrainDelay})
}

// stop has every generation finish what it has, and end. Who has sockets of his own gets
// nothing new from now on, and is told to stop once he has accepted and answered what he got.
func (m *machine) stop() {
	m.beginEnd()
	if m.policy.Steered {
		m.do(turnAway{})
	}
	for _, g := range slices.Clone(m.generations) {
		m.cutShort(g)
		switch {
		case g.stage == StageDraining:
		case g.stage >= StageCurrent && m.emptiesFirst(g):
			m.emptyToStop(g)
		default:
			m.drainGeneration(g)
		}
	}
}

func (m *machine) beginEnd() {
	m.mode, m.stopBy = stopping, m.at.Add(m.policy.DrainTimeout)
	m.forget()
	m.disarm(&m.delay)
}

// cutShort answers who waits for a generation when all of grace stops.
func (m *machine) cutShort(g *generation) {
	if g.stage == StageCurrent {
		m.conclude(g, OutcomeUpgraded, "")
		return
	}
	m.conclude(g, OutcomeFailed, "grace is stopping")
}

func (m *machine) onKillRequested(ev killRequested) {
	m.stoppers = append(m.stoppers, asker(ev.request)...)
	m.say(report{level: warn, text: "stopping at once", fact: FactStopping})
	m.killAll()
}

func (m *machine) killAll() {
	m.beginEnd()
	for _, g := range slices.Clone(m.generations) {
		for _, i := range slices.Clone(g.instances) {
			m.kill(i)
		}
	}
	for _, g := range slices.Clone(m.generations) {
		m.cutShort(g)
		if g.stage != StageDraining {
			m.drainGeneration(g)
		}
	}
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
