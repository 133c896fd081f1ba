package machine

// Fact is what a report says to programs: to hooks, metrics and the service
// manager.
type Fact string

// The facts.
const (
	FactServing    Fact = "serving"    // the first generation is ready
	FactUpgrading  Fact = "upgrading"  // a new generation is begun
	FactUpgraded   Fact = "upgraded"   // it serves, and will not be undone
	FactFailed     Fact = "failed"     // it does not, and was given up; or the first one was
	FactUndone     Fact = "undone"     // it did, and the old one has taken over again
	FactRefused    Fact = "refused"    // an upgrade was not begun
	FactSuperseded Fact = "superseded" // an upgrade gave way to a later one
	FactCrashed    Fact = "crashed"    // an instance that served has ended by itself
	FactRestarting Fact = "restarting" // another one takes its place
	FactKilled     Fact = "killed"     // an instance did not end in time
	FactDraining   Fact = "draining"   // a generation finishes what it has
	FactDrained    Fact = "drained"    // a generation that served has ended
	FactStopping   Fact = "stopping"   // grace was told to stop, or has nothing left to do
)

// FactNames lists all facts.
func FactNames() []string {
	var names []string
	for _, f := range []Fact{
		FactServing, FactUpgrading, FactUpgraded, FactFailed, FactUndone, FactRefused, FactSuperseded,
		FactCrashed, FactRestarting, FactKilled, FactDraining, FactDrained, FactStopping,
	} {
		names = append(names, string(f))
	}
	return names
}
