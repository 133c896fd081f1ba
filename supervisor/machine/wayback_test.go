package machine

import (
	"testing"
	"time"
)

// warm has generation 2 in service, and 1 kept for a way back.
func warm(t *testing.T) *world {
	t.Helper()
	p := steeredPolicy()
	p.KeepWarm = time.Hour
	w := servingWith(t, p)
	w.upgrade(t)
	w.expireRelief(1)
	if stageOf(w, 1) != StageWarm || len(w.said(GenerationWarm)) != 1 || len(w.said(UpgradeDone)) != 1 {
		t.Fatalf("generation 1 is %s", stageOf(w, 1))
	}
	return w
}

func TestRollbackToAWarmGeneration(t *testing.T) {
	for name, next := range map[string]func(w *world){"": func(*world) {}, "after a reexec": (*world).travel, "after a kill": (*world).kill} {
		t.Run(name, func(t *testing.T) {
			w := warm(t)
			next(w)
			request := w.rollback()
			if w.m.current.Number != 1 || w.steered.Generation != 1 || len(w.starting) > 0 || stageOf(w, 2) != StageEmptying {
				t.Fatalf("generation %d is current, 2 is %s", w.m.current.Number, stageOf(w, 2))
			}
			if r := w.results()[request]; r.Outcome != OutcomeUpgraded || r.Generation != 1 {
				t.Errorf("the answer is %+v", r)
			}
		})
	}
}

func TestWarmGenerationEnds(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"its time is over": func(w *world) { w.expireRelief(1) },
		"another upgrade":  func(w *world) { w.happen(UpgradeRequested{}); w.bring(w.t) },
		"a stop":           func(w *world) { w.happen(StopRequested{}) },
		"its instance":     func(w *world) { w.crash(1) },
	} {
		t.Run(name, func(t *testing.T) {
			w := warm(t)
			end(w)
			if stage := stageOf(w, 1); stage != StageEmptying && stage != StageEnded {
				t.Errorf("generation 1 is %s", stage)
			}
			if w.m.mode == running && w.m.current.Number == 1 {
				t.Error("generation 1 has come back")
			}
			w.unwind()
		})
	}
}

// It is no way back by itself: that ends with --settle.
func TestCrashBesideAWarmGenerationIsARestart(t *testing.T) {
	w := warm(t)
	w.crash(2)
	if w.m.current.Number != 2 || len(w.said(InstanceRestarting)) != 1 || stageOf(w, 1) != StageWarm {
		t.Errorf("generation %d is current, 1 is %s", w.m.current.Number, stageOf(w, 1))
	}
}

// One that waits to be asked for does not keep others from draining.
func TestWarmGenerationDoesNotCountAsDraining(t *testing.T) {
	w := warm(t)
	w.m.policy.MaxDraining = 1
	w.happen(UpgradeRequested{})
	if len(w.said(UpgradeWaiting)) > 0 || w.m.candidate == nil {
		t.Error("the upgrade waits")
	}
}
