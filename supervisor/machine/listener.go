package machine

import (
	"slices"
	"time"
)

func (ev Revived) step(m *Machine) {
	if ev.Why != "" {
		m.say(Report{Fact: ListenerDead, Listener: ev.Listener, Why: said(ev.Why)})
		return
	}
	m.say(Report{Fact: ListenerRevived, Listener: ev.Listener, Why: m.suspect()})
	if ev.Replaced {
		m.say(Report{Fact: UpgradeForListener, Why: SocketIsNew})
		UpgradeRequested{}.step(m)
	}
}

// justEnded is how late grace may learn of what a generation did before its end.
const justEnded = time.Second

// suspect is who may have shut a listener down.
func (m *Machine) suspect() ShutDownBy {
	for _, g := range slices.Backward(m.generations) {
		if g.Stage == StageDraining {
			return ShutDownBy{Generation: g.Number}
		}
	}
	if m.ended != 0 && m.at.Sub(m.endedAt) < justEnded {
		return ShutDownBy{Generation: m.ended, Ended: true}
	}
	return ShutDownBy{}
}

// step: the app runs, and binds by itself, so that no other can beside it.
func (ev Uncaptured) step(m *Machine) {
	if m.policy.Held {
		m.say(Report{Fact: CaptureMissing, Why: said(ev.Why)})
		return
	}
	if m.policy.NoUpgrade != nil {
		return
	}
	m.policy.NoUpgrade = NoCapture
	m.say(Report{Fact: CaptureFailed, Why: CaptureRefused(ev)})
}

func (ev Closed) step(m *Machine) {
	if m.current != nil && m.current.Number == ev.Generation {
		m.say(Report{Fact: ListenerShutDown, Generation: ev.Generation, Why: NothingListens{ev.Address}})
	}
}
