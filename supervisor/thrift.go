package supervisor

import (
	godebug "runtime/debug"
	"sync"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

// earlyCollection is Go's GOGC. A collection after 2 MB in place of 4 keeps 2 MB less, and comes once in two upgrades.
const earlyCollection = 50

// thrift keeps grace small once an app serves, which would have to wait for a collection during the start: 3 ms.
type thrift struct{ beginning sync.Once }

func (t *thrift) hear(_ time.Time, l line) {
	if l.Fact == machine.InstanceReady || l.Fact == machine.Adopted || l.Fact == machine.TakenOver {
		t.beginning.Do(func() { godebug.SetGCPercent(earlyCollection) })
	}
}
