package supervisor

import (
	"fmt"
)

func (m *machine) tryUpgrade() {
	if m.wish.rollback && !m.hasPrevious() {
		m.refuse(m.wish.requests, noPrevious)
		m.wish = nil
		return
	}
	draining := 0
	for _, g := range m.generations {
		if g.leaving() {
			draining++
		}
	}
	if draining < m.policy.MaxDraining {
		m.upgrade(m.wish)
		return
	}
	m.wish.explain(m, fmt.Sprintf("%d generations still drain (--max-draining)", draining))
}

func (m *machine) upgrade(w *wish) {
	m.wish = nil
	m.generation++
	g := &generation{number: m.generation, stage: StagePreparing, since: m.at, born: m.at, preparing: true}
	g.attempt = &attempt{Generation: g.number, Began: m.at, Rollback: w.rollback, requests: w.requests}
	a := prepare{generation: g.number, command: w.command}
	if m.current != nil {
		g.attempt.From = m.current.number
		current := m.current.recipe
		a.current = &current
		if w.command == nil {
			a.command = m.current.recipe.Command
		}
	}
	if w.rollback {
		a.again = m.current.before
		a.command = a.again.Command
	}
	g.recipe.Command = a.command
	m.generations = append(m.generations, g)
	m.candidate = g
	m.do(a)
	if g.attempt.From != 0 {
		m.say(report{level: info, text: "upgrade begins", fact: FactUpgrading, generation: g.number})
	}
}

// endPreparing gives the generation whose preparation was answered, or nil if it
// is no candidate any more.
func (m *machine) endPreparing(number int) *generation {
	g := m.find(number)
	if g == nil || !g.preparing {
		return nil
	}
	g.preparing = false
	if g.stage == StageDraining {
		m.endIfEmpty(g)
		return nil
	}
	return g
}

func (m *machine) onPrepared(ev prepared) {
	g := m.endPreparing(ev.generation)
	if g == nil {
		return
	}
	g.recipe = ev.recipe
	g.recipe.Generation = g.number
	if before := m.find(g.attempt.From); before != nil {
		g.attempt.Unchanged = g.recipe.runsLike(before.recipe)
	}
	g.enter(StageCandidate, m.at)
	g.progress = m.arm(timer{generation: g.number}, slowStart)
	for slot := range m.policy.Instances {
		i := m.newInstance(g, slot, 0)
		m.startInstance(i)
	}
}

func (m *machine) onPrepareFailed(ev prepareFailed) {
	if g := m.endPreparing(ev.generation); g != nil {
		m.fail(g, ev.why, ev.status)
	}
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
	m.say(report{level: failure, text: text, fact: FactFailed, generation: g.number, took: m.at.Sub(g.born), why: why})
	m.conclude(g, OutcomeFailed, why)
	m.drainGeneration(g)
	m.endIfDeserted()
}

// failFirst: a service manager has to see at once that nothing works.
func (m *machine) failFirst(g *generation, why string, status int) {
	if m.policy.Held && !g.touched && g.ran && !g.obstructed() {
		why += "; it was not seen to use the --listen sockets (leave --listen out if the app binds by itself, choose a --dialect that it knows, or start it without a wrapper that closes descriptors, such as sudo or npm)"
	}
	if g.ran && status == 0 {
		why += "; if it goes on in the background, tell it to stay in the foreground, or to send MAINPID= to NOTIFY_SOCKET"
	}
	m.status = status
	m.conclude(g, OutcomeFailed, why)
	m.say(report{level: failure, text: "first generation failed", fact: FactFailed, generation: g.number, took: m.at.Sub(g.born), why: why})
	m.stop()
}

func (m *machine) promote(g *generation) {
	if before := m.settling(); before != nil {
		m.endSettling(before)
	}
	old, first := m.current, !m.served
	m.current, m.candidate, m.served = g, nil, true
	g.enter(StageCurrent, m.at)
	m.disarm(&g.progress)
	if m.policy.Steered {
		m.do(steer{g.number})
	}
	r := report{level: info, text: "generation ready", generation: g.number, took: m.at.Sub(g.born)}
	if first {
		r.fact = FactServing
	}
	m.say(r)
	if old != nil {
		before := old.recipe
		g.before = &before
		m.relieve(old)
	}
	if m.settling() == nil {
		m.conclude(g, OutcomeUpgraded, "")
	}
}
