package machine

import (
	"slices"
	"time"
)

type (
	// TurnAway keeps new connections from the sockets that generations share. It is answered by turnedAway, unless the generation
	// ends first.
	TurnAway struct{ Generation int }
	// TurnedAway answers a turnAway action: nothing waits in the queues of these sockets any more, and nothing comes.
	TurnedAway struct{ Generation int }
)

// turnAway comes before the stop signal. What waits in the queue of a socket is reset when the last who has it closes it, so at a stop the last
// generation that accepts is to find it empty.
func (m *Machine) turnAway(g *generation) {
	if m.mode < stopping || !m.policy.Shared || !g.serves() || m.serveBeside(g) {
		m.drainGeneration(g)
		return
	}
	if g.Stage != StageClosing {
		g.enter(StageClosing, m.at)
	}
	if m.current == g {
		m.current = nil
	}
	m.disarm(&g.leaveBy)
	g.turnsAway = true
	g.leaveBy = m.arm(Timer{leaving: g.Number}, m.policy.acceptTime())
	m.do(TurnAway{g.Number})
}

func (ev TurnedAway) step(m *Machine) {
	if g := m.find(ev.Generation); g != nil && g.Stage == StageClosing && g.turnsAway {
		m.drainGeneration(g)
	}
}

// acceptTime is for an app to accept what waits in its queue. Most take a moment.
func (p Policy) acceptTime() time.Duration { return min(besideShared, p.DrainTimeout/8) }

// serveBeside reports whether another generation accepts connections too.
func (m *Machine) serveBeside(g *generation) bool {
	return slices.ContainsFunc(m.generations, func(other *generation) bool { return other != g && other.serves() })
}
