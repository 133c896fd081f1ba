package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

func TestTimersKnowWhenTheyAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timers := newTimers(func(machine.Event) {})
		defer timers.stop()
		one := machine.Timer{Number: 1, Instance: 7}
		timers.Arm(machine.Arm{Timer: one, After: time.Minute})
		time.Sleep(20 * time.Second)
		if left := time.Until(timers.due(one)); left != 40*time.Second {
			t.Errorf("%s are left", left)
		}
		timers.disarm(1)
		if !timers.due(one).IsZero() || !timers.due(machine.Timer{}).IsZero() {
			t.Error("a timer that is not armed is due")
		}
	})
}
