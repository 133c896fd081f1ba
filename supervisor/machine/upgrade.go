package machine

func (m *Machine) tryUpgrade() {
	if m.wish.rollback && !m.hasPrevious() {
		m.refuse(m.wish.requests, NoPrevious)
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
	m.wish.explain(m, TooManyDrain{draining})
}

func (m *Machine) upgrade(w *pendingUpgrade) {
	m.wish = nil
	m.generation++
	g := &generation{number: m.generation, stage: StagePreparing, since: m.at, born: m.at, preparing: true}
	g.attempt = &upgradeRecord{Generation: g.number, Began: m.at, Rollback: w.rollback, requests: w.requests}
	a := Prepare{Generation: g.number, Command: w.command}
	if m.current != nil {
		g.attempt.From = m.current.number
		current := m.current.recipe
		a.Current = &current
		if w.command == nil {
			a.Command = m.current.recipe.Command
		}
	}
	if w.rollback {
		a.Again = m.current.before
		a.Command = a.Again.Command
	}
	g.recipe.Command = a.Command
	m.generations = append(m.generations, g)
	m.candidate = g
	m.do(a)
	if g.attempt.From != 0 {
		m.say(Report{Fact: UpgradeBegun, Generation: g.number})
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
	if g.stage == StageDraining {
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
	g.recipe = ev.Recipe
	g.recipe.Generation = g.number
	if before := m.find(g.attempt.From); before != nil {
		g.attempt.Unchanged = g.recipe.RunsLike(before.recipe)
	}
	g.enter(StageCandidate, m.at)
	g.progress = m.arm(Timer{generation: g.number}, slowStart)
	for slot := range m.policy.Instances {
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
	g.failure = why
	if !m.served {
		m.failFirst(g, why, status)
		return
	}
	r := Report{Fact: UpgradeFailed, Generation: g.number, Took: m.at.Sub(g.born), Why: why}
	if m.current != nil {
		r.Serving = m.current.number
	}
	m.say(r)
	m.conclude(g, OutcomeFailed, why)
	m.drainGeneration(g)
	m.endIfDeserted()
}

// failFirst: a service manager has to see at once that nothing works.
func (m *Machine) failFirst(g *generation, why Reason, status int) {
	if m.policy.Held && !g.touched && g.ran && !g.obstructed() {
		why = Both{why, SocketsUnused}
	}
	if g.ran && status == 0 {
		why = Both{why, WentToBackground}
	}
	m.status = status
	m.conclude(g, OutcomeFailed, why)
	m.say(Report{Fact: FirstFailed, Generation: g.number, Took: m.at.Sub(g.born), Why: why})
	m.stop()
}

func (m *Machine) promote(g *generation) {
	m.tellUndone()
	if before := m.settling(); before != nil {
		m.endSettling(before)
	}
	old, first := m.current, !m.served
	m.current, m.candidate, m.served = g, nil, true
	g.enter(StageCurrent, m.at)
	m.disarm(&g.progress)
	r := Report{Fact: GenerationReady, Generation: g.number, Took: m.at.Sub(g.born)}
	if first {
		r.Fact = FirstReady
	}
	m.say(r)
	if old != nil {
		before := old.recipe
		g.before = &before
	}
	m.cutOver(old)
}
