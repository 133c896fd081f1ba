package supervisor

import (
	"fmt"
	"slices"
	"time"
)

func (m *machine) onRevived(ev revived) {
	why := m.suspect() + " shut it down; connections in its queue were reset"
	if ev.why != "" {
		m.say(report{level: failure, text: fmt.Sprintf("listener %s is dead", ev.listener), why: ev.why})
		return
	}
	m.say(report{level: warn, text: fmt.Sprintf("listener %s revived", ev.listener), why: why})
	if ev.replaced {
		m.say(report{level: warn, text: "upgrading", why: "only a new generation has the new socket"})
		m.onUpgradeRequested(upgradeRequested{})
	}
}

// justEnded is how late grace may learn of what a generation did before its end.
const justEnded = time.Second

// suspect is who may have shut a listener down.
func (m *machine) suspect() string {
	for _, g := range slices.Backward(m.generations) {
		if g.stage == StageDraining {
			return fmt.Sprintf("generation %d, which drains,", g.number)
		}
	}
	if m.ended != 0 && m.at.Sub(m.endedAt) < justEnded {
		return fmt.Sprintf("generation %d, which has just ended,", m.ended)
	}
	return "an app"
}

// onUncaptured: the app runs, and binds by itself, so that no other can beside it.
func (m *machine) onUncaptured(ev uncaptured) {
	if m.policy.Held {
		m.say(report{level: warn, text: "cannot capture the sockets that the app binds itself", why: ev.why})
		return
	}
	if m.policy.NoUpgrade != "" {
		return
	}
	m.policy.NoUpgrade = "the app's sockets cannot be captured (" + waysOut + ")"
	m.say(report{level: failure, text: "cannot capture the app's sockets, so there can be no upgrade", why: ev.why + " (" + waysOut + ")"})
}

const waysOut = "grant the right, see grace doctor, or have grace hold the sockets: --listen"

func (m *machine) onClosed(ev closed) {
	if m.current != nil && m.current.number == ev.generation {
		m.say(report{level: warn, text: "the app has shut its listener down", generation: ev.generation, why: "nothing listens on " + ev.address})
	}
}
