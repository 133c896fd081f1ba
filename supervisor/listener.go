package supervisor

import "fmt"

func (m *machine) onRevived(ev revived) {
	why := "an app shut it down; connections in its queue were reset"
	for _, g := range m.generations {
		if g.stage == StageDraining {
			why = fmt.Sprintf("generation %d shut it down as it drained; connections in its queue were reset", g.number)
		}
	}
	if ev.why != "" {
		m.say(report{level: failure, text: fmt.Sprintf("listener %s is dead", ev.listener), why: ev.why})
		return
	}
	m.say(report{level: warn, text: fmt.Sprintf("listener %s revived", ev.listener), why: why})
	if ev.replaced {
		m.say(report{level: warn, text: "upgrading", why: "only a new generation has the new socket"})
		m.onUpgradeRequested()
	}
}
