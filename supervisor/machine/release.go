package machine

// ReleaseRequested asks grace to end, and to leave the app running.
type ReleaseRequested struct{ Request int }

// Detach leaves all that the current generation has to its app, which nobody supervises any more. Finish follows.
type Detach struct{}

func (ev ReleaseRequested) step(m *Machine) {
	if why := m.holdsBack(); why != nil {
		m.say(Report{Fact: ReleaseRefused, Why: why})
		m.answerAll(asker(ev.Request), Result{Outcome: OutcomeRefused, Why: why})
		return
	}
	m.forget()
	g := m.current
	for _, i := range g.instances {
		m.disarm(&i.timer)
		m.disarm(&i.watchdog)
	}
	m.mode = done
	m.say(Report{Fact: AppReleased, Generation: g.Named()})
	m.do(Detach{})
	m.answerAll(asker(ev.Request), Result{Outcome: OutcomeReleased, Generation: g.Number})
	m.do(Finish{m.policy.ReleaseStatus})
}

// holdsBack is why the app cannot be released now: what is under way needs grace to end it.
func (m *Machine) holdsBack() Reason {
	switch {
	case m.mode != running:
		return GraceStopping
	case m.policy.NoRelease:
		return BelongsToManager
	case m.keeping > 0:
		return ConnectionsKept
	case !m.Calm(), len(m.generations) != 1, !m.current.ready():
		return NotCalm
	}
	return nil
}
