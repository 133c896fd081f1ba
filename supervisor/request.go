package supervisor

import "slices"

func (m *machine) onUpgradeRequested() {
	if m.mode != running {
		m.say(report{level: warn, text: "upgrade refused", why: "grace is stopping"})
		return
	}
	if m.policy.NoUpgrade != "" {
		m.say(report{level: warn, text: "upgrade refused", why: m.policy.NoUpgrade})
		return
	}
	if !m.waiting {
		m.waiting, m.waitingTold = true, false
	}
}

func (m *machine) onStopRequested() {
	switch m.mode {
	case running:
		m.say(report{level: info, text: "stopping", within: m.policy.DrainTimeout})
		m.linger()
	case lingering, stopping:
		m.say(report{level: warn, text: "stopping at once", why: "told to stop a second time"})
		m.killAll()
	case done:
	}
}

// linger serves on for load balancers that are slow to notice. Before the first
// generation is ready there is nothing to go on with.
func (m *machine) linger() {
	if m.policy.DrainDelay == 0 || m.current == nil {
		m.stop()
		return
	}
	m.mode, m.waiting = lingering, false
	if m.candidate != nil {
		m.drainGeneration(m.candidate)
	}
	m.delay = m.arm(timer{}, m.policy.DrainDelay)
	m.say(report{level: info, text: "serving on before the drain", within: m.policy.DrainDelay})
}

func (m *machine) stop() {
	m.mode, m.waiting = stopping, false
	m.disarm(&m.delay)
	for _, g := range slices.Clone(m.generations) {
		if g.stage != StageDraining {
			m.drainGeneration(g)
		}
	}
}

func (m *machine) onKillRequested() {
	m.say(report{level: warn, text: "stopping at once"})
	m.killAll()
}

func (m *machine) killAll() {
	m.mode = stopping
	for _, g := range slices.Clone(m.generations) {
		for _, i := range slices.Clone(g.instances) {
			m.kill(i)
		}
	}
	m.stop()
}

// A signal that grace does not know is the app's: of the generation in service,
// or of the first one before that.
func (m *machine) onSignalReceived(ev signalReceived) {
	g := m.current
	if g == nil {
		g = m.candidate
	}
	if g == nil {
		return
	}
	for _, i := range g.instances {
		if i.pid != 0 && !i.ended {
			m.do(tell{i.id, ev.signal})
		}
	}
}
