package host

import (
	"encoding/json"
	"testing"

	"github.com/gracerun/grace/handoff/steering"
)

// A state has the generations of instances from the machine: the steering in it must neither be behind that nor ahead.
func TestCopyOfTheSteeringHasWhatWasAskedForBefore(t *testing.T) {
	s, _ := steeringOfOne(t)
	a := &Host{Steering: s}
	regroup := func(from, to int) func() {
		return func() {
			if err := s.Regroup([]steering.Move{{From: steering.InstanceKey{Generation: from}, To: steering.InstanceKey{Generation: to}}}); err != nil {
				t.Error(err)
			}
		}
	}
	begin, first := make(chan struct{}), regroup(1, -1)
	a.sequence.do(func() {
		<-begin
		first()
	})
	copied := a.CopySteering(func(uint64, int) {})
	ended := a.sequence.do(regroup(-1, -2))
	close(begin)
	<-ended
	c := <-copied
	if c.Err != nil {
		t.Fatal(c.Err)
	}
	text, err := json.Marshal(c.State)
	if err != nil {
		t.Fatal(err)
	}
	var state steering.SteeringState
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	if got := state.Groups[0].Members[0].Generation; got != -1 {
		t.Errorf("the copy has the instance in generation %d", got)
	}
}
