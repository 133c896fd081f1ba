package supervisor

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTimersKnowWhenTheyAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timers := newTimers(func(event) {})
		defer timers.stop()
		one := timer{number: 1, instance: 7}
		timers.arm(arm{timer: one, after: time.Minute})
		time.Sleep(20 * time.Second)
		if left := time.Until(timers.due(one)); left != 40*time.Second {
			t.Errorf("%s are left", left)
		}
		timers.disarm(1)
		if !timers.due(one).IsZero() || !timers.due(timer{}).IsZero() {
			t.Error("a timer that is not armed is due")
		}
	})
}
