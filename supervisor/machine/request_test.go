package machine

import (
	"slices"
	"testing"
)

// results are the answers so far, by request.
func (w *world) results() map[int]Result {
	found := map[int]Result{}
	for _, a := range w.seen {
		if a, ok := a.(Answer); ok {
			found[a.Request] = a.Result
		}
	}
	return found
}

// bring lets the candidate serve.
func (w *world) bring(t *testing.T) *generation {
	t.Helper()
	g := w.m.candidate
	if g == nil {
		t.Fatal("no upgrade was begun")
	}
	w.answerPrepare(g.Number, true)
	for _, i := range slices.Clone(g.instances) {
		w.answerStart(i.ID, true)
		w.readiness(i.ID, false)
	}
	return g
}

func (w *world) request(command ...string) int {
	request := w.ask()
	w.happen(UpgradeRequested{Request: request, Command: command})
	return request
}

func (w *world) rollback() int {
	request := w.ask()
	w.happen(UpgradeRequested{Request: request, Rollback: true})
	return request
}

func TestWhoAsksLearnsThatTheNewGenerationServes(t *testing.T) {
	w := serving(t)
	request := w.request()
	if r, early := w.results()[request]; early {
		t.Fatalf("answered %+v before the new generation serves", r)
	}
	w.bring(t)
	if r := w.results()[request]; r.Outcome != OutcomeUpgraded || r.Generation != 2 || r.Serving != 2 || r.Took <= 0 {
		t.Errorf("answer: %+v", r)
	}
}

func TestWhoAsksLearnsWhyItFailed(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(w *world) (why Reason)
		ran  bool
	}{
		"nothing to run": {func(w *world) Reason { w.answerPrepare(2, false); return Said("check failed") }, false},
		"it exits": {func(w *world) Reason {
			w.answerPrepare(2, true)
			w.answerStart(2, true)
			w.endInstance(2, Exit{Code: 3})
			return InstanceExited{Exit{Code: 3}}
		}, true},
		"it cannot be started": {func(w *world) Reason {
			w.answerPrepare(2, true)
			w.answerStart(2, false)
			return Exit{Code: 1, NotRun: "no process is left", Shortage: true}
		}, false},
		"it cannot be executed": {func(w *world) Reason {
			w.answerPrepare(2, true)
			w.answerStart(2, true)
			w.endInstance(2, Exit{Code: 1, NotRun: "cannot start /app: permission denied"})
			return InstanceExited{Exit{Code: 1, NotRun: "cannot start /app: permission denied"}}
		}, false},
		"it is never ready": {func(w *world) Reason {
			w.answerPrepare(2, true)
			w.answerStart(2, true)
			w.expirePhase(2)
			return NotReadyInTime{Instance: 2, PID: 2, After: w.m.policy.ReadyTimeout}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := serving(t)
			request := w.request()
			why := c.fail(w)
			r := w.results()[request]
			if r.Outcome != OutcomeFailed || r.Generation != 2 || r.Serving != 1 || r.Ran != c.ran || r.Why != why {
				t.Errorf("answer: %+v, and the reason is %+v", r, why)
			}
			if h := w.m.history; len(h) != 1 || h[0].Outcome != OutcomeFailed || h[0].From != 1 || h[0].why != r.Why {
				t.Errorf("history: %+v", h)
			}
		})
	}
}

func TestAnswerWaitsUntilTheUpgradeCannotBeUndone(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	request := w.request()
	w.bring(t)
	if r, early := w.results()[request]; early {
		t.Fatalf("answered %+v while the old generation can take over again", r)
	}
	w.expireRelief(1)
	if r := w.results()[request]; r.Outcome != OutcomeUpgraded || r.Serving != 2 {
		t.Errorf("answer: %+v", r)
	}
}

func TestWhoAsksLearnsThatItWasUndone(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	request := w.request("app", "new")
	w.bring(t)
	w.endInstance(2, Exit{Code: 3})
	if r := w.results()[request]; r.Outcome != OutcomeUndone || r.Serving != 1 || r.Why != (InstanceExited{Exit{Code: 3}}) {
		t.Errorf("answer: %+v", r)
	}
	w.happen(UpgradeRequested{})
	if g := w.m.candidate; g == nil || slices.Equal(g.Launch.Command, []string{"app", "new"}) {
		t.Error("the next upgrade runs the command that was undone")
	}
}

func TestRequestsForTheSameAreOneUpgrade(t *testing.T) {
	w, _ := candidateStarted(t)
	requests := []int{w.request("b"), w.request("b"), w.request()}
	w.readiness(2, false)
	g := w.bring(t)
	for _, request := range requests {
		if r := w.results()[request]; r.Outcome != OutcomeUpgraded || r.Generation != g.Number {
			t.Errorf("answer to request %d: %+v", request, r)
		}
	}
	if g.Number != 3 || w.m.pending != nil || g.Launch.Command[0] != "b" {
		t.Errorf("generation %d runs %v, waiting: %v", g.Number, g.Launch.Command, w.m.pending)
	}
}

func TestLaterCommandSupersedes(t *testing.T) {
	w, _ := candidateStarted(t)
	older, newer := w.request("b"), w.request("c")
	if r := w.results()[older]; r.Outcome != OutcomeSuperseded || r.Serving != 1 {
		t.Errorf("answer to the older request: %+v", r)
	}
	w.readiness(2, false)
	if g := w.bring(t); g.Launch.Command[0] != "c" || w.results()[newer].Outcome != OutcomeUpgraded {
		t.Errorf("generation %d runs %v", g.Number, g.Launch.Command)
	}
	if len(w.said(UpgradeSuperseded)) != 1 {
		t.Error("the log does not say so")
	}
}

func TestCommandThatServesIsTheOneToUpgrade(t *testing.T) {
	w := serving(t)
	w.request("b")
	w.answerPrepare(2, false)
	w.happen(UpgradeRequested{})
	if g := w.bring(t); slices.Equal(g.Launch.Command, []string{"b"}) {
		t.Error("a command that failed was taken over")
	}
	w.request("c")
	w.bring(t)
	w.happen(UpgradeRequested{})
	if g := w.bring(t); !slices.Equal(g.Launch.Command, []string{"c"}) {
		t.Errorf("generation %d runs %v", g.Number, g.Launch.Command)
	}
}

func TestRollbackRunsWhatRanBefore(t *testing.T) {
	w := serving(t)
	nothing := w.rollback()
	if r := w.results()[nothing]; r.Outcome != OutcomeRefused || r.Why != NoPrevious {
		t.Errorf("answer with nothing to go back to: %+v", r)
	}
	first := w.m.current.Launch
	w.request("b")
	w.bring(t)
	request := w.rollback()
	if again := w.preparing[3].Again; again == nil || !slices.Equal(again.Command, first.Command) {
		t.Fatalf("to be run again: %+v", again)
	}
	w.bring(t)
	if r := w.results()[request]; r.Outcome != OutcomeUpgraded || !w.m.history[1].Rollback {
		t.Errorf("answer: %+v, history %+v", r, w.m.history)
	}
	w.rollback()
	if g := w.bring(t); g.Launch.Command[0] != "b" {
		t.Errorf("a rollback of a rollback runs %v", g.Launch.Command)
	}
}

// TestRollbackThatWaitedCanFindNothing: what it was to undo was undone already.
func TestRollbackThatWaitedCanFindNothing(t *testing.T) {
	p := steeredPolicy()
	p.MaxDraining = 1
	w := servingWith(t, p)
	w.slow = true
	w.upgrade(t)
	request := w.rollback()
	w.endInstance(2, Exit{Code: 3})
	w.answerSteer("")
	w.answerSteer("")
	if r := w.results()[request]; r.Outcome != OutcomeRefused || r.Serving != 1 {
		t.Errorf("answer: %+v", r)
	}
}

func TestStopAnswersEverybody(t *testing.T) {
	w, _ := candidateStarted(t)
	waiting := w.request("b")
	stop := w.ask()
	w.happen(StopRequested{stop})
	late := w.request()
	for request, want := range map[int]Outcome{waiting: OutcomeRefused, late: OutcomeRefused} {
		if r := w.results()[request]; r.Outcome != want || r.Why != GraceStopping || r.Serving != 0 {
			t.Errorf("answer to request %d: %+v", request, r)
		}
	}
	if _, early := w.results()[stop]; early {
		t.Error("a stop was answered before the end")
	}
	w.unwind()
	if r := w.results()[stop]; r.Outcome != OutcomeStopped {
		t.Errorf("answer to the stop: %+v", r)
	}
}

func TestSecondStopByRequestWaitsAlong(t *testing.T) {
	w := serving(t)
	first, second := w.ask(), w.ask()
	w.happen(StopRequested{first})
	w.happen(StopRequested{second})
	if len(w.said(StopRepeated, StoppingAtOnce)) > 0 || w.m.instances[1].Phase != PhaseDraining {
		t.Fatalf("instance 1 is %s", w.m.instances[1].Phase)
	}
	w.endInstance(1, Exit{})
	for _, request := range []int{first, second} {
		if r := w.results()[request]; r.Outcome != OutcomeStopped {
			t.Errorf("answer to request %d: %+v", request, r)
		}
	}
}

func TestHistoryKeepsTheLast(t *testing.T) {
	w := serving(t)
	for range historyLength + 3 {
		w.upgrade(t)
		w.endInstance(w.m.generations[0].instances[0].ID, Exit{})
	}
	h := w.m.history
	if len(h) != historyLength || h[len(h)-1].Generation != historyLength+4 || h[0].From != h[0].Generation-1 || h[0].Outcome != OutcomeUpgraded {
		t.Errorf("history: %+v", h)
	}
}
