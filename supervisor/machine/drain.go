package machine

import (
	"slices"
	"time"
)

// drainGeneration asks all of a generation to end.
func (m *Machine) drainGeneration(g *generation) {
	emptied, within := g.emptied(), m.drainTime(g)
	g.enter(StageDraining, m.at)
	m.disarm(&g.progress)
	m.disarm(&g.leaveBy)
	if m.candidate == g {
		m.candidate = nil
	}
	if m.current == g && m.mode == stopping {
		m.current = nil
	}
	if g.preparing {
		m.do(Abandon{g.Number})
	}
	for _, i := range slices.Clone(g.instances) {
		m.drainInstance(i, within)
	}
	if m.mode == stopping && (m.policy.Steered || m.policy.Held) {
		m.do(LetGo{Generation: g.Number, Shared: !m.serveBeside(g)})
	}
	if g.alive() {
		m.say(Report{Fact: g.fact(drainingFact(emptied)), Generation: g.Named(), Within: within})
		g.progress = m.arm(Timer{generation: g.Number}, firstProgress)
	}
	m.endIfEmpty(g)
}

// drainTime is what an instance has to end in: --drain-timeout, or what emptying its generation
// has left of it.
func (m *Machine) drainTime(g *generation) time.Duration {
	if !g.emptied() {
		return m.policy.DrainTimeout
	}
	left := g.Emptying.Add(m.policy.DrainTimeout).Sub(m.at)
	return max(left, m.policy.KillAfter())
}

func drainingFact(emptied bool) Fact {
	if emptied {
		return GenerationToldToStop
	}
	return GenerationDraining
}

func (m *Machine) endIfEmpty(g *generation) {
	if !g.leaving() || g.preparing || len(g.instances) > 0 || !m.whole(g) {
		return
	}
	spent := g.enter(StageEnded, m.at)
	m.drop(g)
	if m.current == g {
		m.current = nil
	}
	m.ended, m.endedAt = g.Named(), m.at
	m.do(Retire{g.Number})
	m.reportEnd(g, spent)
	if g.Of == 0 {
		m.retired = append(m.retired, g.Number)
		return
	}
	if whole := m.find(g.Of); whole != nil {
		m.endIfEmpty(whole)
		m.startAgain(whole)
	}
}

// startAgain starts what has waited for the end of others in its place.
func (m *Machine) startAgain(g *generation) {
	if g == m.current && m.rolling == nil && m.mode < stopping && m.whole(g) {
		m.startHeld(g, InstanceGone)
	}
}

func (m *Machine) reportEnd(g *generation, spent time.Duration) {
	r := Report{Generation: g.Named(), Took: spent}
	switch {
	case g.Forced && g.failure != nil:
		r.Fact, r.Why = FailedGenerationKilled, KilledInFlight{g.InFlight}
	case g.Forced:
		r.Fact, r.Why = GenerationKilled, KilledInFlight{g.InFlight}
	case g.failure != nil:
		r.Fact, r.Why = FailedGenerationEnded, HasFailed
	case g.ending != nil:
		r.Fact, r.Why = GenerationDrained, g.ending
	default:
		r.Fact, r.Why = GenerationDrained, HasDrained
	}
	r.Fact = g.fact(r.Fact)
	m.say(r)
}

// endIfDeserted ends grace when nothing serves, starts or is going to.
func (m *Machine) endIfDeserted() {
	if m.mode > lingering || m.candidate != nil || m.pending != nil || m.current == nil {
		return
	}
	if m.current.alive() {
		return
	}
	m.status = m.current.Status
	m.say(Report{Fact: AppEnded, Generation: m.current.Number, Why: RestartPolicy{m.policy.Restart}})
	m.stop()
}

// tellProgress says how far a generation has come that takes its time.
func (m *Machine) tellProgress(g *generation) {
	if g.leaving() {
		m.do(Count{g.Number, g.pids()})
		return
	}
	for _, i := range g.instances {
		if i.Phase == PhaseStarting {
			m.say(Report{Fact: InstanceNotReady, Generation: g.Named(), Instance: i.ID, PID: i.PID, Took: m.at.Sub(i.Since), Why: i.unreadiness()})
		}
	}
}

func (ev Counted) step(m *Machine) {
	g := m.find(ev.Generation)
	if g == nil {
		return
	}
	g.InFlight = ev.InFlight
	r := Report{Fact: DrainProgress, Generation: g.Named(), Took: m.at.Sub(g.Since), Why: said(ev.Why)}
	if ev.Why == "" {
		r.Connections = &ev.InFlight
	}
	if requests, told := g.requests(); told {
		r.Requests = &requests
	}
	m.say(r)
}
