package machine

import "slices"

type (
	// ScaleRequested asks for another number of instances.
	ScaleRequested struct {
		Request   int
		Instances int // 0: By more than there are to be
		By        int
	}
	// scaling is who waits for another number of instances.
	scaling struct {
		requests []int
		told     bool // the log says why it waits
	}
)

// MostInstances is beyond any machine's use, and below what would keep grace busy with starting alone.
const MostInstances = 1000

func (ev ScaleRequested) step(m *Machine) {
	to := ev.Instances
	if to == 0 {
		to = m.policy.Instances + ev.By
	}
	if why := m.refusesScale(to); why != nil {
		m.say(Report{Fact: ScalingRefused, Why: why})
		m.answerAll(asker(ev.Request), Result{Outcome: OutcomeRefused, Why: why})
		return
	}
	if m.scaling != nil {
		m.answerAll(m.scaling.requests, Result{Outcome: OutcomeSuperseded, Why: LaterRequest})
	}
	m.policy.Instances, m.scaled = to, true
	m.scaling = &scaling{requests: asker(ev.Request)}
}

func (m *Machine) refusesScale(to int) Reason {
	switch {
	case m.mode != running:
		return GraceStopping
	case to < 1 || to > MostInstances:
		return InstancesBeyond{to, MostInstances}
	case m.policy.OneInstance != nil && to > 1:
		return m.policy.OneInstance
	case m.policy.NoUpgrade != nil && to > 1:
		return m.policy.NoUpgrade
	}
	return nil
}

// free reports whether instances can come and go: no generation is on its way.
func (m *Machine) free() bool {
	return m.mode == running && m.candidate == nil && m.rolling == nil && m.current != nil && !m.current.foreign() &&
		!m.goesOver() && m.settling() == nil && (m.reexec == nil || !m.reexec.begun)
}

// tryScale makes the current generation as large as it is to be.
func (m *Machine) tryScale() {
	g := m.current
	switch {
	case !m.free():
		m.tellScalingWaits()
	case g.Size < m.policy.Instances:
		m.grow(g, m.policy.Instances)
	case g.Size > m.policy.Instances && g.forks():
	case g.Size > m.policy.Instances:
		m.shrink(g, m.policy.Instances)
		m.endScaling(OutcomeScaled, nil)
	default:
		m.endScaling(OutcomeScaled, nil)
	}
}

func (m *Machine) tellScalingWaits() {
	if s := m.scaling; s != nil && !s.told && m.mode == running && (m.candidate == nil || m.candidate.Of == 0) {
		s.told = true
		m.say(Report{Fact: ScalingWaiting, Why: OtherUpgrade, Instances: m.policy.Instances})
	}
}

// forks reports whether an instance has no process yet: it cannot be moved.
func (g *generation) forks() bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return i.Phase != PhaseBackoff && i.PID == 0 })
}

func (m *Machine) grow(g *generation, to int) {
	m.say(Report{Fact: ScalingBegun, Generation: g.Number, Instances: to})
	var slots []int
	for slot := g.Size; slot < to; slot++ {
		slots = append(slots, slot)
	}
	m.bringIn(slots).Size = to
}

func (m *Machine) shrink(g *generation, to int) {
	m.say(Report{Fact: ScalingBegun, Generation: g.Number, Instances: to})
	g.Size = to
	var leaving []*instance
	for _, i := range slices.Clone(g.instances) {
		switch {
		case i.Slot < to:
		case i.Phase == PhaseBackoff:
			m.exit(i)
		default:
			leaving = append(leaving, i)
		}
	}
	if len(leaving) > 0 {
		m.takeOut(g, leaving)
	}
}

func (m *Machine) endScaling(outcome Outcome, why Reason) {
	s := m.scaling
	if s == nil {
		return
	}
	m.scaling = nil
	m.answerAll(s.requests, Result{Outcome: outcome, Generation: m.current.Number, Instances: m.policy.Instances, Why: why})
	if outcome == OutcomeScaled {
		m.say(Report{Fact: Scaled, Generation: m.current.Number, Instances: m.policy.Instances})
	}
}

// endGrowth is for a batch that has come, or has failed to: then there are as many as before.
func (m *Machine) endGrowth(to int, why Reason) {
	if why != nil {
		m.policy.Instances = m.current.Size
		m.endScaling(OutcomeFailed, why)
		return
	}
	m.current.Size = to
	if to == m.policy.Instances {
		m.endScaling(OutcomeScaled, nil)
	}
}
