package supervisor

import (
	godebug "runtime/debug"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

// The start of the first instance is not to wait for a collection.
func TestGarbageIsCollectedEarlyOnceAnAppServes(t *testing.T) {
	const before = 150
	defer godebug.SetGCPercent(godebug.SetGCPercent(before))
	var memory idleMemory
	for _, step := range []struct {
		fact machine.Fact
		want int
	}{
		{machine.InstanceStarted, before},
		{machine.InstanceReady, earlyCollection},
	} {
		memory.hear(time.Now(), line{Report: machine.Report{Fact: step.fact}})
		if got := godebug.SetGCPercent(before); got != step.want {
			t.Errorf("after %v garbage is collected at %d %%, not at %d %%", step.fact, got, step.want)
		}
	}
}
