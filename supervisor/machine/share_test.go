package machine

import (
	"slices"
	"testing"
	"time"
)

func canaryPolicy(steps ...CanaryStep) Policy {
	p := steeredPolicy()
	p.Canary, p.Examined = steps, true
	return p
}

// sharing has generation 2 beside 1, with the share of the first step.
func sharing(t *testing.T, p Policy) (w *world, request int) {
	t.Helper()
	w = servingWith(t, p)
	request = w.request()
	w.bring(t)
	w.checkShare(t, p.Canary[0].Share)
	return w, request
}

func (w *world) checkShare(t *testing.T, share Share) {
	t.Helper()
	if w.steered != (Steer{Generation: 1, Beside: 2, Share: share}) || stageOf(w, 2) != StageSharing || w.m.current.Number != 1 {
		t.Fatalf("connections go to %+v, generation 2 is %s", w.steered, stageOf(w, 2))
	}
}

func (w *world) promote(fully bool) Result {
	request := w.ask()
	w.happen(PromoteRequested{Request: request, Fully: fully})
	return w.results()[request]
}

func TestShareGrowsStepByStep(t *testing.T) {
	w, request := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{Share: 2500}))
	w.expireRelief(2)
	w.checkShare(t, 2500)
	if w.m.find(2).leaveBy.Number != 0 {
		t.Error("a step without a time ends by itself")
	}
	if r := w.promote(false); r.Outcome != OutcomePromoted || r.Share != Whole || r.Generation != 2 {
		t.Errorf("the answer is %+v", r)
	}
	if w.steered != (Steer{Generation: 2}) || w.m.current.Number != 2 {
		t.Fatalf("connections go to %+v", w.steered)
	}
	w.expireRelief(1)
	if r := w.results()[request]; r.Outcome != OutcomeUpgraded {
		t.Errorf("the answer is %+v", r)
	}
}

func TestPromotion(t *testing.T) {
	w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
	if r := w.promote(false); r.Outcome != OutcomePromoted || r.Share != 2500 {
		t.Errorf("the answer is %+v", r)
	}
	w.checkShare(t, 2500)
	w, _ = sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
	if r := w.promote(true); r.Share != Whole || w.m.current.Number != 2 {
		t.Errorf("the answer is %+v", r)
	}
	if r := w.promote(true); r.Outcome != OutcomeRefused || r.Why != NothingShares || len(w.said(PromotionRefused)) != 1 {
		t.Errorf("the answer is %+v", r)
	}
}

// Who reads the log may count connections then.
func TestStepIsToldOnceConnectionsGoThere(t *testing.T) {
	for why, want := range map[string]int{"": 2, "no memory": 1} {
		w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
		w.slow = true
		w.expireRelief(2)
		if told := w.said(GenerationSharing); len(told) != 1 || told[0].Share != 500 {
			t.Errorf("before: %+v", told)
		}
		w.answerSteer(why)
		if told := w.said(GenerationSharing); len(told) != want || want == 2 && (told[1].Share != 2500 || told[1].Within != time.Minute) {
			t.Errorf("after %q: %+v", why, told)
		}
	}
}

// Who has asked may count connections as soon as the answer is there.
func TestPromotionIsAnsweredOnceConnectionsGoThere(t *testing.T) {
	for name, c := range map[string]struct {
		by    func(w *world)
		fully bool
		want  Result
	}{
		"step":             {func(w *world) { w.answerSteer("") }, false, Result{Outcome: OutcomePromoted, Generation: 2, Serving: 1, Share: 2500}},
		"all":              {func(w *world) { w.answerSteer("") }, true, Result{Outcome: OutcomePromoted, Generation: 2, Serving: 2, Share: Whole}},
		"step is refused":  {func(w *world) { w.answerSteer("no memory") }, false, Result{Outcome: OutcomeFailed, Generation: 2, Serving: 1, Why: NotSteered{2, Said("no memory")}}},
		"all is refused":   {func(w *world) { w.answerSteer("no memory") }, true, Result{Outcome: OutcomeFailed, Generation: 2, Serving: 1, Why: NotSteered{2, Said("no memory")}}},
		"grace stops":      {func(w *world) { w.happen(StopRequested{}) }, false, Result{Outcome: OutcomeFailed, Generation: 2, Why: GraceStopping}},
		"all ends at once": {func(w *world) { w.happen(KillRequested{}) }, true, Result{Outcome: OutcomeFailed, Generation: 2, Why: GraceStopping}},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
			w.slow = true
			request := w.ask()
			w.happen(PromoteRequested{Request: request, Fully: c.fully})
			if r, ok := w.results()[request]; ok {
				t.Fatalf("the answer is %+v, and connections go as before", r)
			}
			c.by(w)
			if r := w.results()[request]; r != c.want {
				t.Errorf("the answer is %+v, want %+v", r, c.want)
			}
		})
	}
}

func TestAllGoBackFromACanary(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(w *world)
		why  Reason
		fact Fact
	}{
		"its instance ends":   {func(w *world) { w.endInstance(2, Exit{Code: 3}) }, InstanceExited{Exit{Code: 3}}, UpgradeUndone},
		"the check fails":     {func(w *world) { w.happen(Rejected{2, "too slow"}) }, CheckFailed{Said("too slow")}, UpgradeUndone},
		"a rollback":          {func(w *world) { w.rollback() }, AskedBack, RolledBack},
		"the watchdog barks":  {func(w *world) { w.expire(w.m.instances[2].watchdog.Number); w.endInstance(2, Exit{Code: 3}) }, InstanceExited{Exit{Code: 3}}, UpgradeUndone},
		"the drain delay":     {func(w *world) { w.m.policy.DrainDelay = time.Minute; w.happen(StopRequested{}) }, GraceStopping, UpgradeUndone},
		"it cannot be shared": {func(w *world) { w.slow = true; w.promote(false); w.answerSteer("no memory"); w.answerSteer("") }, NotSteered{2, Said("no memory")}, UpgradeUndone},
	} {
		t.Run(name, func(t *testing.T) {
			w, request := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
			end.by(w)
			if w.steered != (Steer{Generation: 1}) || w.m.current.Number != 1 || w.m.candidate != nil {
				t.Fatalf("connections go to %+v, generation %d is current", w.steered, w.m.current.Number)
			}
			if r := w.results()[request]; r.Outcome != OutcomeUndone || r.Serving != 1 {
				t.Errorf("the answer is %+v", r)
			}
			if told := w.said(end.fact); len(told) != 1 || told[0].Why != end.why {
				t.Errorf("reports %+v", told)
			}
			if w.m.instances[1].Phase != PhaseReady {
				t.Errorf("instance 1 is %s", w.m.instances[1].Phase)
			}
		})
	}
}

// The check of a generation that shares no more means nothing.
func TestLateCheckIsIgnored(t *testing.T) {
	w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}))
	w.promote(true)
	w.happen(Rejected{2, "too slow"})
	if w.m.current.Number != 2 {
		t.Errorf("generation %d is current", w.m.current.Number)
	}
}

func TestCanaryNeedsSocketsOfItsOwn(t *testing.T) {
	for name, p := range map[string]Policy{"held": anyPolicy(), "shared": sharedPolicy()} {
		t.Run(name, func(t *testing.T) {
			w := servingWith(t, p)
			request := w.ask()
			w.happen(UpgradeRequested{Request: request, Canary: []CanaryStep{{Share: 500}}})
			if r := w.results()[request]; r.Outcome != OutcomeRefused || r.Why != NeedsOwnSockets || w.m.candidate != nil {
				t.Errorf("the answer is %+v", r)
			}
		})
	}
}

func TestShareStays(t *testing.T) {
	for name, next := range map[string]func(w *world){"a reexec": (*world).travel, "a kill": (*world).kill} {
		t.Run(name, func(t *testing.T) {
			w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
			w.expireRelief(2)
			w.checkShare(t, 2500)
			w.seen = nil
			next(w)
			w.checkShare(t, 2500)
			if !slices.Contains(w.seen, Action(Examine{2, 1})) {
				t.Error("it is examined no more")
			}
			if w.expireRelief(2); w.m.current.Number != 2 {
				t.Error("the step does not end")
			}
		})
	}
}

// An old generation of which nothing is left has its clients go to the canary.
func TestCanaryIsAloneWhenTheOldGenerationIsGone(t *testing.T) {
	p := canaryPolicy(CanaryStep{Share: 500})
	p.Restart = RestartNever
	w, _ := sharing(t, p)
	w.endInstance(1, Exit{Code: 3})
	if w.m.current.Number != 2 || w.steered != (Steer{Generation: 2}) {
		t.Errorf("generation %d is current, connections go to %+v", w.m.current.Number, w.steered)
	}
}
