package machine

import (
	"testing"
	"time"
)

func limited(restarts, instances int) Policy {
	p := anyPolicy()
	p.Instances, p.Watchdog = instances, 0
	p.RestartLimit = RestartLimit{Restarts: restarts, Within: time.Minute}
	return p
}

// crashAndRestart has an instance of the current generation end, and what takes its place get ready if there is one.
func (w *world) crashAndRestart(instance int) (next int) {
	w.endInstance(instance, Exit{Code: 7})
	for _, i := range w.m.instances {
		if i.Phase == PhaseBackoff {
			w.expirePhase(i.ID)
			w.answerStart(i.ID, true)
			w.readiness(i.ID, false)
			return i.ID
		}
	}
	return 0
}

func TestRestartsAreLimited(t *testing.T) {
	w := servingWith(t, limited(2, 1))
	second := w.crashAndRestart(1)
	third := w.crashAndRestart(second)
	if second == 0 || third == 0 || w.m.mode != running {
		t.Fatalf("instances %d and %d", second, third)
	}
	if next := w.crashAndRestart(third); next != 0 || !w.finished || w.status != 7 {
		t.Errorf("restarted as %d; finished %v with %d", next, w.finished, w.status)
	}
	if r := w.said(RestartsExhausted); len(r) != 1 || r[0].Why != (TooManyRestarts{RestartLimit{2, time.Minute}}) {
		t.Errorf("reports %+v", r)
	}
}

func TestRestartsOfLongAgoDoNotCount(t *testing.T) {
	w, last := servingWith(t, limited(2, 1)), 1
	for range 5 {
		if last = w.crashAndRestart(last); last == 0 {
			t.Fatal("it was given up")
		}
		w.at = w.at.Add(31 * time.Second)
	}
}

// The instances that still serve finish what they have.
func TestOthersDrainWhenOneIsGivenUp(t *testing.T) {
	w := servingWith(t, limited(1, 2))
	w.crashAndRestart(w.crashAndRestart(1))
	if w.finished || w.m.mode != stopping || w.m.instances[2].Phase != PhaseDraining {
		t.Fatalf("instance 2 is %s", w.m.instances[2].Phase)
	}
	w.endInstance(2, Exit{})
	if !w.finished || w.status != 7 {
		t.Errorf("finished %v with %d", w.finished, w.status)
	}
}

// What an upgrade may repair is restarted meanwhile.
func TestUpgradeIsWaitedFor(t *testing.T) {
	w := servingWith(t, limited(1, 1))
	last := w.crashAndRestart(1)
	w.happen(UpgradeRequested{})
	if last = w.crashAndRestart(last); last == 0 || w.m.mode != running {
		t.Error("it was given up")
	}
}

// Nor does a shortage that passes count, which is no fault of the app's.
func TestShortageDoesNotCount(t *testing.T) {
	w := servingWith(t, limited(1, 1))
	w.endInstance(1, Exit{Code: 7})
	for range 3 {
		for _, i := range w.m.instances {
			w.expirePhase(i.ID)
			delete(w.starting, i.ID)
			w.happen(StartFailed{i.ID, Exit{NotRun: "no room", Shortage: true}})
		}
	}
	if w.m.mode != running || len(w.m.instances) != 1 {
		t.Error("it was given up")
	}
}

func TestRestartsTravel(t *testing.T) {
	w := servingWith(t, limited(1, 1))
	w.crashAndRestart(1)
	s := w.m.Snapshot(func(Timer) time.Time { return time.Time{} }, func(Reason) string { return "" })
	m, _, err := Restore(w.m.policy, s, w.at)
	if err != nil || len(m.restartedAt) != 1 {
		t.Errorf("restarts at %v, %v", m.restartedAt, err)
	}
}
