package machine

import (
	"fmt"
	"time"
)

// Share is a part of the new connections, in hundredths of a percent.
type Share int

// Whole is all of them.
const Whole Share = 10000

func (s Share) String() string {
	if s%100 == 0 {
		return fmt.Sprintf("%d %%", s/100)
	}
	return fmt.Sprintf("%d.%02d %%", s/100, s%100)
}

// CanaryStep is what share of the new connections a new generation gets, and for how long; 0 stands for as long as nobody
// asks for the next step.
type CanaryStep struct {
	Share Share
	For   time.Duration
}

// beginSharing has a generation that is ready serve a part of the clients, as long as that can be undone by sending all new
// connections to the current one.
func (m *Machine) beginSharing(g *generation) {
	m.tellUndone()
	m.endReturn()
	g.enter(StageSharing, m.at)
	m.disarm(&g.progress)
	m.tellReady(g)
	m.examine(g)
	m.takeStep(g)
}

// examine has the check run beside the generation that has the rest of the clients.
func (m *Machine) examine(g *generation) {
	if m.policy.Examined && m.current != nil {
		m.do(Examine{g.Number, m.current.Number})
	}
}

// shares reports whether a generation that has become ready gets only a part of the clients at first.
func (m *Machine) shares(g *generation) bool {
	return m.policy.Steered && !m.policy.Shared && m.current != nil && m.current.serves() && g.Step < len(g.Canary)
}

func (m *Machine) takeStep(g *generation) {
	step := g.Canary[g.Step]
	g.Share = step.Share
	m.disarm(&g.leaveBy)
	if step.For > 0 {
		g.leaveBy = m.arm(Timer{leaving: g.Number}, step.For)
	}
	g.stepsOn = true
	m.steerAnew()
}

// tellStep comes when the share is what the step says.
func (m *Machine) tellStep(g *generation) {
	if g.stepsOn {
		g.stepsOn = false
		m.say(Report{Fact: GenerationSharing, Generation: g.Named(), Serving: m.current.Number, Within: g.Canary[g.Step].For, Share: g.Share})
	}
}

// advance goes on to the next step or, after the last one, to all new connections.
func (m *Machine) advance(g *generation) {
	g.Step++
	if g.Step < len(g.Canary) {
		m.takeStep(g)
		return
	}
	m.promote(g)
}

// sharing is the generation that serves beside the current one, or nil.
func (m *Machine) sharing() *generation {
	if m.candidate != nil && m.candidate.Stage == StageSharing {
		return m.candidate
	}
	return nil
}

// promoteAlone is for a generation that shares with one of which nothing is left to serve.
func (m *Machine) promoteAlone() {
	if g := m.sharing(); g != nil && m.rolling == nil && m.mode == running && (m.current == nil || !m.current.alive()) {
		g.failure = nil
		m.promote(g)
	}
}

// retract sends all clients back to the current generation, which has served on. What the other one has accepted it can
// finish.
func (m *Machine) retract(g *generation, why Reason) {
	m.candidate = nil
	m.undo(g, m.current, why)
}

func (ev PromoteRequested) step(m *Machine) {
	g := m.sharing()
	if g == nil || m.mode != running || m.rolling != nil {
		m.say(Report{Fact: PromotionRefused, Why: NothingShares})
		m.answerAll(asker(ev.Request), Result{Outcome: OutcomeRefused, Why: NothingShares})
		return
	}
	if ev.Fully {
		g.Step = len(g.Canary)
	}
	m.advance(g)
	m.promotions = append(m.promotions, promotion{g, asker(ev.Request)})
}

// promotion is who waits for a generation to get the new connections of its next step.
type promotion struct {
	generation *generation
	requests   []int
}

// answerPromotions comes when new connections go where they are to go.
func (m *Machine) answerPromotions() {
	for _, p := range m.promotions {
		r := Result{Outcome: OutcomePromoted, Generation: p.generation.Number, Share: m.shareOf(p.generation)}
		if p.generation != m.current && p.generation != m.sharing() {
			r = Result{Outcome: OutcomeFailed, Generation: p.generation.Number, Why: p.generation.failure}
		}
		m.answerAll(p.requests, r)
	}
	m.promotions = nil
}

// leavePromotions is for who waits when another thing comes first.
func (m *Machine) leavePromotions(r Result) {
	for _, p := range m.promotions {
		r.Generation = p.generation.Number
		m.answerAll(p.requests, r)
	}
	m.promotions = nil
}

func (m *Machine) shareOf(g *generation) Share {
	if g == m.current {
		return Whole
	}
	return g.Share
}

func (ev Rejected) step(m *Machine) {
	if g := m.sharing(); g != nil && g.Number == ev.Generation {
		m.fail(g, CheckFailed{said(ev.Why)}, StatusFailure)
	}
}
