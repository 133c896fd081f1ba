package machine

// settled ends the time in which a generation takes over again by itself.
func (m *Machine) settled(g *generation) {
	if m.policy.KeepWarm == 0 || !g.serves() {
		m.empty(g)
		return
	}
	m.disarm(&g.leaveBy)
	g.enter(StageWarm, m.at)
	g.leaveBy = m.arm(Timer{leaving: g.Number}, m.policy.KeepWarm)
	m.say(Report{Fact: GenerationWarm, Generation: g.Named(), Within: m.policy.KeepWarm})
}

// replaced is the generation that new connections can be sent back to at once, or nil.
func (m *Machine) replaced() *generation {
	for _, g := range m.generations {
		if g.Stage == StageSettling || g.Stage == StageWarm {
			return g
		}
	}
	return nil
}

// endReturn comes before another generation takes the place of the current one: there is one way back.
func (m *Machine) endReturn() {
	if g := m.replaced(); g != nil {
		m.endSettling(g)
	}
}

// turnBack goes back to what ran before without a new start, where that is there still. It reports whether it is.
func (m *Machine) turnBack(request int) bool {
	if g := m.sharing(); g != nil {
		m.back = append(m.back, asker(request)...)
		m.fail(g, AskedBack, StatusFailure)
		return true
	}
	before := m.replaced()
	if before == nil || !before.serves() || m.candidate != nil || m.goesOver() {
		return false
	}
	back := upgradeRecord{
		UpgradeRecord: UpgradeRecord{Generation: before.Number, From: m.current.Number, Began: m.at, Rollback: true},
		requests:      asker(request),
	}
	m.giveBack(m.current, before, AskedBack)
	before.upgrade = &back
	return true
}

// answerBack comes when the old generation serves alone again, or all of grace stops.
func (m *Machine) answerBack() {
	r := Result{Outcome: OutcomeUpgraded}
	if m.current != nil {
		r.Generation = m.current.Number
	}
	m.answerAll(m.back, r)
	m.back = nil
}
