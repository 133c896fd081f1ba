package machine

import "testing"

func (w *world) answered(request int) *Result {
	for _, a := range w.seen {
		if a, ok := a.(Answer); ok && a.Request == request {
			return &a.Result
		}
	}
	return nil
}

func TestReexecHandsOverOnceAtACalmMoment(t *testing.T) {
	w := serving(t)
	first, second := w.ask(), w.ask()
	w.happen(ReexecRequested{first})
	w.happen(ReexecRequested{second})
	if !w.leaving {
		t.Fatal("nothing is handed over")
	}
	w.leaving = false
	w.happen(ReexecFailed{"it is broken"})
	for _, request := range []int{first, second} {
		if r := w.answered(request); r == nil || r.Outcome != OutcomeFailed || r.Why != Said("it is broken") || r.Serving != 1 {
			t.Errorf("%d: %+v", request, r)
		}
	}
	w.upgrade(t)
}

func TestReexecWaitsForAnUpgrade(t *testing.T) {
	w, _ := candidateStarted(t)
	w.happen(ReexecRequested{w.ask()})
	if w.leaving {
		t.Fatal("it has not waited")
	}
	for id, i := range w.m.instances {
		if i.Phase == PhaseStarting {
			w.happen(Readied{id})
		}
	}
	if !w.leaving {
		t.Fatal("it still waits")
	}
}

// An upgrade that is asked for while grace prepares to leave comes first, if it is in time.
func TestReexecIsDelayed(t *testing.T) {
	w := serving(t)
	w.happen(ReexecRequested{w.ask()})
	w.happen(UpgradeRequested{})
	if w.m.candidate != nil {
		t.Fatal("an upgrade has begun while grace leaves")
	}
	w.leaving = false
	w.happen(ReexecDelayed{})
	if w.m.candidate == nil || w.leaving {
		t.Fatal("the upgrade has not begun")
	}
	w.answerPrepare(2, true)
	for id := range w.starting {
		w.answerStart(id, true)
		w.happen(Readied{id})
	}
	if !w.leaving {
		t.Fatal("the reexec was forgotten")
	}
}

func TestReexecedMachineDoesNothingMore(t *testing.T) {
	w := serving(t)
	request := w.ask()
	w.happen(ReexecRequested{request})
	actions := w.m.Step(w.at, Reexeced{4711})
	var last Action
	for _, a := range actions {
		switch a := a.(type) {
		case Answer:
			if a.Request != request || a.Result.Outcome != OutcomeReexeced || a.Result.Serving != 1 {
				t.Errorf("%+v", a)
			}
		case Report, Finish:
		default:
			t.Errorf("%T is done", a)
		}
		last = a
	}
	if f, ok := last.(Finish); !ok || f.Status != 0 {
		t.Errorf("it ends with %+v", last)
	}
	if more := w.m.Step(w.at, StopRequested{}); more != nil {
		t.Errorf("then %v", more)
	}
}

func TestReexecIsRefusedWhenGraceStops(t *testing.T) {
	w, _ := candidateStarted(t)
	waiting, late := w.ask(), w.ask()
	w.happen(ReexecRequested{waiting})
	w.happen(StopRequested{})
	w.happen(ReexecRequested{late})
	for _, request := range []int{waiting, late} {
		if r := w.answered(request); r == nil || r.Outcome != OutcomeRefused {
			t.Errorf("%d: %+v", request, r)
		}
	}
	w.unwind()
}
