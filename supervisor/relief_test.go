package supervisor

import (
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
)

func stageOf(w *world, generation int) Stage {
	if g := w.m.find(generation); g != nil {
		return g.stage
	}
	return StageEnded
}

func TestSteeredGenerationIsToldToStopWhenItIsQuiet(t *testing.T) {
	w := replaced(t)
	if stageOf(w, 1) != StageSettling || w.steered != 2 {
		t.Fatalf("generation 1 is %s, connections go to %d", stageOf(w, 1), w.steered)
	}
	w.expireRelief(1)
	if !w.observed[1] || w.m.instances[1].phase != Ready {
		t.Fatalf("observed %v, instance 1 is %s", w.observed, w.m.instances[1].phase)
	}
	w.happen(quieted{1})
	if w.m.instances[1].phase != Draining {
		t.Fatalf("instance 1 is %s", w.m.instances[1].phase)
	}
	w.endInstance(1, childproc.Exit{})
	if stageOf(w, 1) != StageEnded || len(w.said("generation told to stop")) != 1 {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
}

func TestIdleConnectionsAreWaitedForAsLongAsIsWanted(t *testing.T) {
	for _, empty := range []time.Duration{0, time.Second, testPolicy().DrainTimeout} {
		t.Run(empty.String(), func(t *testing.T) {
			p := steeredPolicy()
			p.Empty = empty
			w := servingWith(t, p)
			w.upgrade(t)
			w.expireRelief(1)
			if w.patience[1] != empty || stageOf(w, 1) != StageEmptying {
				t.Errorf("idle connections of a generation that is %s are waited for %s", stageOf(w, 1), w.patience[1])
			}
			told := w.said("generation draining")
			if len(told) != 1 || strings.Contains(told[0].why, "--empty") != (empty < p.DrainTimeout) {
				t.Errorf("%+v", told)
			}
			w.expireRelief(1)
			if stageOf(w, 1) != StageDraining {
				t.Errorf("generation 1 is %s after --drain-timeout", stageOf(w, 1))
			}
		})
	}
}

func TestSteeredGenerationThatStaysBusyIsToldToStopInTheEnd(t *testing.T) {
	w := replaced(t)
	w.expireRelief(1)
	w.expireRelief(1)
	if w.m.instances[1].phase != Draining || len(w.said("gave up waiting for idle connections")) != 1 {
		t.Errorf("instance 1 is %s", w.m.instances[1].phase)
	}
}

func TestUpgradeIsUndoneIfTheNewGenerationDiesWhileItSettles(t *testing.T) {
	for name, die := range map[string]func(w *world){
		"it crashes":         func(w *world) { w.endInstance(2, childproc.Exit{Code: 3}) },
		"it ends":            func(w *world) { w.endInstance(2, childproc.Exit{}) },
		"the watchdog barks": func(w *world) { w.expire(w.m.instances[2].watchdog.number); w.endInstance(2, childproc.Exit{Code: 3}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := replaced(t)
			die(w)
			if w.m.current.number != 1 || stageOf(w, 1) != StageCurrent || w.steered != 1 || stageOf(w, 2) != StageEnded {
				t.Fatalf("generation 1 is %s, 2 is %s, connections go to %d", stageOf(w, 1), stageOf(w, 2), w.steered)
			}
			undone := w.said("upgrade undone, generation 1 serves again")
			if len(undone) != 1 || !strings.Contains(undone[0].why, "exit") && !strings.Contains(undone[0].why, "status") {
				t.Errorf("reports: %+v", undone)
			}
			w.upgrade(t)
			if w.steered != 3 {
				t.Errorf("connections go to %d after the next upgrade", w.steered)
			}
		})
	}
}

func TestGenerationThatTakesOverAgainIsMadeWhole(t *testing.T) {
	p := steeredPolicy()
	p.Instances = 2
	for name, lose := range map[string]func(w *world){
		"an instance has crashed while it settled": func(w *world) { w.upgrade(t); w.endInstance(1, childproc.Exit{Code: 3}) },
		"an instance was to be started again":      func(w *world) { w.endInstance(1, childproc.Exit{Code: 3}); w.upgrade(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := servingWith(t, p)
			lose(w)
			w.endInstance(w.m.current.instances[0].id, childproc.Exit{Code: 3})
			if w.m.current.number != 1 || len(w.m.current.instances) != 2 {
				t.Fatalf("generation %d is current, with %d instances", w.m.current.number, len(w.m.current.instances))
			}
			next := w.m.current.instances[1]
			w.expirePhase(next.id)
			w.answerStart(next.id, true)
			w.readiness(next.id, false)
			if next.phase != Ready || next.slot != 0 {
				t.Errorf("%+v", next)
			}
		})
	}
}

func TestGenerationThatStopsByItselfCannotTakeOver(t *testing.T) {
	w := replaced(t)
	w.happen(withdrawn{1})
	w.endInstance(2, childproc.Exit{Code: 3})
	if w.m.current.number != 2 || w.steered != 2 || len(w.said("restarting")) != 1 {
		t.Errorf("generation %d is current, connections go to %d", w.m.current.number, w.steered)
	}
}

func TestCrashAfterTheSettlingIsARestart(t *testing.T) {
	w := replaced(t)
	w.expireRelief(1)
	w.crash(2)
	if w.m.current.number != 2 || len(w.said("restarting")) != 1 {
		t.Errorf("generation %d is current", w.m.current.number)
	}
}

func TestCrashOfAReplacedGenerationEndsIt(t *testing.T) {
	w := replaced(t)
	w.crash(1)
	if stageOf(w, 1) != StageEnded || w.m.current.number != 2 {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
	w.crash(2)
	if len(w.said("restarting")) != 1 {
		t.Error("generation 2 is not restarted")
	}
}

func TestGenerationWithoutAReadyInstanceCannotTakeOver(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.crash(1)
	w.upgrade(t)
	if stageOf(w, 1) != StageEnded {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
}

func TestNextUpgradeEndsTheSettling(t *testing.T) {
	w := replaced(t)
	w.upgrade(t)
	if stageOf(w, 1) != StageEmptying || stageOf(w, 2) != StageSettling || w.steered != 3 {
		t.Errorf("generation 1 is %s, 2 is %s, connections go to %d", stageOf(w, 1), stageOf(w, 2), w.steered)
	}
}

func TestGenerationsThatWereReplacedCountAsDraining(t *testing.T) {
	p := steeredPolicy()
	p.MaxDraining = 1
	w := servingWith(t, p)
	w.upgrade(t)
	w.happen(upgradeRequested{})
	if w.m.candidate != nil || len(w.said("upgrade waits")) != 1 {
		t.Error("the upgrade does not wait")
	}
}
