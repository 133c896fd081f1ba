package supervisor

import (
	"testing"
)

func (w *world) answered(request int) *result {
	for _, a := range w.seen {
		if a, ok := a.(answer); ok && a.request == request {
			return &a.result
		}
	}
	return nil
}

func TestReexecHandsOverOnceAtACalmMoment(t *testing.T) {
	w := serving(t)
	first, second := w.ask(), w.ask()
	w.happen(reexecRequested{first})
	w.happen(reexecRequested{second})
	if !w.leaving {
		t.Fatal("nothing is handed over")
	}
	w.leaving = false
	w.happen(reexecFailed{"it is broken"})
	for _, request := range []int{first, second} {
		if r := w.answered(request); r == nil || r.outcome != OutcomeFailed || r.why != "it is broken" || r.serving != 1 {
			t.Errorf("%d: %+v", request, r)
		}
	}
	w.upgrade(t)
}

func TestReexecWaitsForAnUpgrade(t *testing.T) {
	w, _ := candidateStarted(t)
	w.happen(reexecRequested{w.ask()})
	if w.leaving {
		t.Fatal("it has not waited")
	}
	for id, i := range w.m.instances {
		if i.phase == Starting {
			w.happen(readied{id})
		}
	}
	if !w.leaving {
		t.Fatal("it still waits")
	}
}

// An upgrade that is asked for while grace prepares to leave comes first, if it is in time.
func TestReexecIsDelayed(t *testing.T) {
	w := serving(t)
	w.happen(reexecRequested{w.ask()})
	w.happen(upgradeRequested{})
	if w.m.candidate != nil {
		t.Fatal("an upgrade has begun while grace leaves")
	}
	w.leaving = false
	w.happen(reexecDelayed{})
	if w.m.candidate == nil || w.leaving {
		t.Fatal("the upgrade has not begun")
	}
	w.answerPrepare(2, true)
	for id := range w.starting {
		w.answerStart(id, true)
		w.happen(readied{id})
	}
	if !w.leaving {
		t.Fatal("the reexec was forgotten")
	}
}

func TestReexecedMachineDoesNothingMore(t *testing.T) {
	w := serving(t)
	request := w.ask()
	w.happen(reexecRequested{request})
	actions := w.m.step(w.at, reexeced{4711})
	var last action
	for _, a := range actions {
		switch a := a.(type) {
		case answer:
			if a.request != request || a.result.outcome != OutcomeReexeced || a.result.serving != 1 {
				t.Errorf("%+v", a)
			}
		case report, finish:
		default:
			t.Errorf("%T is done", a)
		}
		last = a
	}
	if f, ok := last.(finish); !ok || f.status != 0 {
		t.Errorf("it ends with %+v", last)
	}
	if more := w.m.step(w.at, stopRequested{}); more != nil {
		t.Errorf("then %v", more)
	}
}

func TestReexecIsRefusedWhenGraceStops(t *testing.T) {
	w, _ := candidateStarted(t)
	waiting, late := w.ask(), w.ask()
	w.happen(reexecRequested{waiting})
	w.happen(stopRequested{})
	w.happen(reexecRequested{late})
	for _, request := range []int{waiting, late} {
		if r := w.answered(request); r == nil || r.outcome != OutcomeRefused {
			t.Errorf("%d: %+v", request, r)
		}
	}
	w.unwind()
}
