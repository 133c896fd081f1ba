package machine

func (m *Machine) tryUpgrade() {
	if m.pending.rollback && !m.hasPrevious() {
		m.refuse(m.pending.requests, NoPrevious)
		m.pending = nil
		return
	}
	draining := 0
	for _, g := range m.generations {
		if g.leaving() && g.Stage != StageWarm && g.Of == 0 {
			draining++
		}
	}
	if draining < m.policy.MaxDraining {
		m.upgrade(m.pending)
		return
	}
	m.pending.explain(m, TooManyDrain{draining})
}

func (m *Machine) upgrade(w *pendingUpgrade) {
	m.pending = nil
	m.generation++
	g := &generation{GenerationSnapshot: GenerationSnapshot{Number: m.generation, Stage: StagePreparing, Since: m.at, Born: m.at}, preparing: true}
	g.upgrade = &upgradeRecord{UpgradeRecord: UpgradeRecord{Generation: g.Number, Began: m.at, Rollback: w.rollback}, requests: w.requests}
	a := Prepare{Generation: g.Number, Command: w.command}
	if m.current != nil {
		g.upgrade.From = m.current.Number
		current := m.current.Launch
		a.Current = &current
		if w.command == nil {
			a.Command = m.current.Launch.Command
		}
	}
	if w.rollback {
		a.Again = m.current.Before
		a.Command = a.Again.Command
	}
	g.Canary = m.policy.Canary
	if w.canary != nil {
		g.Canary = w.canary
	}
	g.Surge = m.policy.MaxSurge
	if w.surge != nil {
		g.Surge = *w.surge
	}
	g.Launch.Command = a.Command
	m.generations = append(m.generations, g)
	m.candidate = g
	m.do(a)
	if g.upgrade.From != 0 {
		m.say(Report{Fact: UpgradeBegun, Generation: g.Named()})
	}
}

// endPreparing gives the generation whose preparation was answered, or nil if it
// is no candidate any more.
func (m *Machine) endPreparing(number int) *generation {
	g := m.find(number)
	if g == nil || !g.preparing {
		return nil
	}
	g.preparing = false
	if g.Stage == StageDraining {
		m.endIfEmpty(g)
		return nil
	}
	return g
}

func (ev Prepared) step(m *Machine) {
	g := m.endPreparing(ev.Generation)
	if g == nil {
		return
	}
	g.Launch = ev.Launch
	g.Launch.Generation = g.Number
	if before := m.find(g.upgrade.From); before != nil && !before.foreign() {
		g.upgrade.Unchanged = g.Launch.RunsLike(before.Launch)
	}
	g.enter(StageCandidate, m.at)
	g.progress = m.arm(Timer{generation: g.Number}, slowStart)
	g.Size = m.policy.Instances
	if m.rolls(g) {
		m.beginRolling(g)
		return
	}
	for slot := range g.Size {
		i := m.newInstance(g, slot, 0)
		m.startInstance(i)
	}
}

func (ev PrepareFailed) step(m *Machine) {
	if g := m.endPreparing(ev.Generation); g != nil {
		m.fail(g, Said(ev.Why), ev.Status)
	}
}

// fail ends a candidate. What it may have accepted already it can finish: it is
// told to drain, as any other, and can never be promoted after that.
func (m *Machine) fail(g *generation, why Reason, status int) {
	switch {
	case g.Of != 0:
		m.failBatch(g, why)
		return
	case m.rolling == g:
		m.failRolling(g, why)
		return
	case g.Stage == StageSharing:
		m.retract(g, why)
		return
	}
	g.failure = why
	if !m.served {
		m.failFirst(g, why, status)
		return
	}
	r := Report{Fact: UpgradeFailed, Generation: g.Named(), Took: m.at.Sub(g.Born), Why: why}
	if m.current != nil {
		r.Serving = m.current.Number
	}
	m.say(r)
	m.conclude(g, OutcomeFailed, why)
	m.drainGeneration(g)
	m.endIfDeserted()
}

// failFirst: a service manager has to see at once that nothing works.
func (m *Machine) failFirst(g *generation, why Reason, status int) {
	if m.policy.Held && !g.Touched && g.Ran && !g.obstructed() {
		why = Both{why, SocketsUnused}
	}
	if g.Ran && status == 0 {
		why = Both{why, WentToBackground}
	}
	m.status = status
	m.conclude(g, OutcomeFailed, why)
	m.say(Report{Fact: FirstFailed, Generation: g.Named(), Took: m.at.Sub(g.Born), Why: why})
	m.stop()
}

// tellReady says once that a generation serves: who hears it may connect at once.
func (m *Machine) tellReady(g *generation) {
	if g.toldReady {
		return
	}
	g.toldReady = true
	fact := GenerationReady
	if !m.toldFirst {
		fact, m.toldFirst = FirstReady, true
	}
	m.say(Report{Fact: fact, Generation: g.Named(), Took: m.at.Sub(g.Born)})
}

// comeIn has a generation serve that is ready.
func (m *Machine) comeIn(g *generation) {
	switch {
	case g.Of != 0: // tryJoin
	case m.rolling == g: // it has come when all have
	case m.shares(g):
		m.beginSharing(g)
	default:
		m.promote(g)
	}
}

func (m *Machine) promote(g *generation) {
	if m.current != nil {
		m.tellReady(m.current)
	}
	m.tellUndone()
	m.endReturn()
	old := m.current
	m.current, m.candidate, m.served = g, nil, true
	g.enter(StageCurrent, m.at)
	g.Share, g.Roll = 0, nil
	m.disarm(&g.progress)
	m.disarm(&g.leaveBy)
	if old != nil && !old.foreign() { // nobody can roll back to what grace has not started
		before := old.Launch
		g.Before = &before
	}
	m.cutOver(old)
}
