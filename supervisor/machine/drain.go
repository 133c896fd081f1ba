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
	if m.mode == stopping && m.policy.Steered {
		m.do(LetGo{g.Number})
	}
	if g.alive() {
		m.say(Report{Fact: drainingFact(emptied), Generation: g.Number, Within: within})
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
	if !g.leaving() || g.preparing || len(g.instances) > 0 {
		return
	}
	spent := g.enter(StageEnded, m.at)
	m.disarm(&g.progress)
	m.disarm(&g.leaveBy)
	m.generations = slices.DeleteFunc(m.generations, func(other *generation) bool { return other == g })
	if m.current == g {
		m.current = nil
	}
	m.ended, m.endedAt = g.Number, m.at
	m.do(Retire{g.Number})
	m.retired = append(m.retired, g.Number)
	m.reportEnd(g, spent)
}

func (m *Machine) reportEnd(g *generation, spent time.Duration) {
	r := Report{Generation: g.Number, Took: spent}
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
			m.say(Report{Fact: InstanceNotReady, Generation: g.Number, Instance: i.ID, PID: i.PID, Took: m.at.Sub(i.Since), Why: i.unreadiness()})
		}
	}
}

func (ev Counted) step(m *Machine) {
	g := m.find(ev.Generation)
	if g == nil {
		return
	}
	g.InFlight = ev.InFlight
	r := Report{Fact: DrainProgress, Generation: g.Number, Took: m.at.Sub(g.Since), Why: said(ev.Why)}
	if ev.Why == "" {
		r.Connections = &ev.InFlight
	}
	if requests, told := g.requests(); told {
		r.Requests = &requests
	}
	m.say(r)
}
