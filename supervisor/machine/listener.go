package machine

import (
	"fmt"
	"slices"
	"time"
)

func (m *Machine) onRevived(ev Revived) {
	why := m.suspect() + " shut it down; connections in its queue were reset"
	if ev.Why != "" {
		m.say(Report{Level: Failure, Text: fmt.Sprintf("listener %s is dead", ev.Listener), Why: ev.Why})
		return
	}
	m.say(Report{Level: Warn, Text: fmt.Sprintf("listener %s revived", ev.Listener), Why: why})
	if ev.Replaced {
		m.say(Report{Level: Warn, Text: "upgrading", Why: "only a new generation has the new socket"})
		m.onUpgradeRequested(UpgradeRequested{})
	}
}

// justEnded is how late grace may learn of what a generation did before its end.
const justEnded = time.Second

// suspect is who may have shut a listener down.
func (m *Machine) suspect() string {
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
func (m *Machine) onUncaptured(ev Uncaptured) {
	if m.policy.Held {
		m.say(Report{Level: Warn, Text: "cannot capture the sockets that the app binds itself", Why: ev.Why})
		return
	}
	if m.policy.NoUpgrade != "" {
		return
	}
	m.policy.NoUpgrade = "the app's sockets cannot be captured (" + waysOut + ")"
	m.say(Report{Level: Failure, Text: "cannot capture the app's sockets, so there can be no upgrade", Why: ev.Why + " (" + waysOut + ")"})
}

const waysOut = "grant the right, see grace doctor, or have grace hold the sockets: --listen"

func (m *Machine) onClosed(ev Closed) {
	if m.current != nil && m.current.number == ev.Generation {
		m.say(Report{Level: Warn, Text: "the app has shut its listener down", Generation: ev.Generation, Why: "nothing listens on " + ev.Address})
	}
}
