package supervisor

import (
	"fmt"
	"slices"
	"time"
)

// drainGeneration asks all of a generation to end.
func (m *machine) drainGeneration(g *generation) {
	emptied := g.stage == StageEmptying
	g.enter(StageDraining, m.at)
	m.disarm(&g.progress)
	m.disarm(&g.relief)
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
	if m.mode == stopping && m.policy.Steered {
		m.do(letGo{g.number})
	}
	if g.alive() {
		m.say(report{level: info, text: drainingText(emptied), fact: FactDraining, generation: g.number, within: m.drainTime()})
		g.progress = m.arm(timer{generation: g.number}, firstProgress)
	}
	m.endIfEmpty(g)
}

// drainTime is what an instance has to end in: --drain-timeout, or what is left of it where
// all of grace stops and the generation was emptied first.
func (m *machine) drainTime() time.Duration {
	if m.mode != stopping {
		return m.policy.DrainTimeout
	}
	return max(m.stopBy.Sub(m.at), m.policy.DrainTimeout-m.emptyTime())
}

func drainingText(emptied bool) string {
	if emptied {
		return "generation told to stop"
	}
	return "generation draining"
}

func (m *machine) endIfEmpty(g *generation) {
	if !g.leaving() || g.preparing || len(g.instances) > 0 {
		return
	}
	spent := g.enter(StageEnded, m.at)
	m.disarm(&g.progress)
	m.disarm(&g.relief)
	m.generations = slices.DeleteFunc(m.generations, func(other *generation) bool { return other == g })
	if m.current == g {
		m.current = nil
	}
	m.ended, m.endedAt = g.number, m.at
	m.do(retire{g.number})
	m.retired = append(m.retired, g.number)
	m.reportEnd(g, spent)
}

func (m *machine) reportEnd(g *generation, spent time.Duration) {
	r := report{level: info, text: "generation ended", fact: FactDrained, generation: g.number, took: spent, why: "drained"}
	if g.failure != "" {
		r.why, r.fact = "failed", ""
	}
	if g.forced {
		r.level, r.why = warn, fmt.Sprintf("killed, with %d connections in flight when last counted", g.inFlight)
	}
	m.say(r)
}

// endIfDeserted ends grace when nothing serves, starts or is going to.
func (m *machine) endIfDeserted() {
	if m.mode > lingering || m.candidate != nil || m.wish != nil || m.current == nil {
		return
	}
	if m.current.alive() {
		return
	}
	m.status = m.current.status
	m.say(report{level: info, text: "the app has ended", fact: FactStopping, generation: m.current.number, why: "--restart " + string(m.policy.Restart)})
	m.stop()
}

// tellProgress says how far a generation has come that takes its time.
func (m *machine) tellProgress(g *generation) {
	if g.leaving() {
		m.do(count{g.number, g.pids()})
		return
	}
	for _, i := range g.instances {
		if i.phase == Starting {
			m.say(report{level: info, text: "not ready yet", generation: g.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since), why: i.unreadiness()})
		}
	}
}

func (m *machine) onCounted(ev counted) {
	g := m.find(ev.generation)
	if g == nil {
		return
	}
	g.inFlight = ev.inFlight
	m.say(report{level: info, text: g.drainProgress(ev), generation: g.number, took: m.at.Sub(g.since), why: ev.why})
}

func (g *generation) drainProgress(ev counted) string {
	requests, told := g.requests()
	switch {
	case told && ev.why != "":
		return fmt.Sprintf("draining (%d requests in flight)", requests)
	case told:
		return fmt.Sprintf("draining (%d connections, %d requests in flight)", ev.inFlight, requests)
	case ev.why != "":
		return "draining (connections in flight cannot be counted)"
	}
	return fmt.Sprintf("draining (%d connections in flight)", ev.inFlight)
}
