package supervisor

import (
	godebug "runtime/debug"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

const (
	// earlyCollection is Go's GOGC. A collection after 2 MB in place of 4 keeps 2 MB less, and comes once in two upgrades.
	earlyCollection = 50
	// quiet is how long nothing has happened when grace is taken for idle.
	quiet = 3 * time.Second
)

// idleMemory keeps grace small while it has nothing to do. It begins when an app serves, which would have to wait for a collection
// during the start: 3 ms.
type idleMemory struct{ pending *time.Timer }

func (m *idleMemory) hear(_ time.Time, l line) {
	switch {
	case m.pending != nil:
		m.pending.Reset(quiet)
	case serves(l):
		godebug.SetGCPercent(earlyCollection)
		m.pending = time.AfterFunc(quiet, giveBackPages)
	}
}

// serves reports whether an app serves by what the line tells. It may have served before.
func serves(l line) bool {
	return l.Fact == machine.InstanceReady || l.Fact == machine.Adopted || l.Fact == machine.TakenOver
}

func (m *idleMemory) end() {
	if m.pending != nil {
		m.pending.Stop()
	}
}
