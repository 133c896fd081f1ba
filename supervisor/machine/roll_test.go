package machine

import (
	"slices"
	"testing"
)

// rollingPolicy has four instances, of which so many more may run.
func rollingPolicy(surge int, steered bool) Policy {
	p := anyPolicy()
	if steered {
		p = steeredPolicy()
	}
	p.Instances, p.MaxSurge = 4, Surge{Limited: true, Count: surge}
	return p
}

// both ways in which new connections come to instances.
var steeredOrNot = map[string]bool{"held": false, "steered": true}

// startNext has the instances of a generation that are being started get their process.
func (w *world) startNext(generation int) (ids []int) {
	for _, i := range slices.Clone(w.m.find(generation).instances) {
		if w.starting[i.ID] {
			w.answerStart(i.ID, true)
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// comeNext has them get ready too.
func (w *world) comeNext(generation int) {
	for _, id := range w.startNext(generation) {
		w.readiness(id, false)
	}
}

// leaveNext has those end that were taken out of service.
func (w *world) leaveNext() {
	for _, b := range slices.Clone(w.m.generations) {
		if b.Of == 0 {
			continue
		}
		if w.observed[b.Number] {
			w.quiet(b.Number)
		}
		for _, i := range slices.Clone(b.instances) {
			w.endInstance(i.ID, Exit{})
		}
	}
}

func (w *world) readies(generation int) int {
	if g := w.m.find(generation); g != nil {
		return g.readies()
	}
	return 0
}

func (w *world) checkReadies(t *testing.T, old, new int) {
	t.Helper()
	if got, beside := w.readies(1), w.readies(2); got != old || beside != new {
		t.Fatalf("%d instances of generation 1 and %d of generation 2 serve, not %d and %d: %v", got, beside, old, new, w)
	}
}

// rolled is an upgrade of which so many of the four instances have come.
func rolled(t *testing.T, p Policy, instances int) (w *world, request int) {
	t.Helper()
	w = servingWith(t, p)
	request = w.request()
	w.answerPrepare(2, true)
	for n := range instances {
		w.comeNext(2)
		w.checkReadies(t, 3-n, n+1)
		w.leaveNext()
	}
	return w, request
}

func TestInstancesComeOneByOne(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			w, request := rolled(t, rollingPolicy(1, steered), 3)
			if _, early := w.results()[request]; early {
				t.Error("who asked was answered early")
			}
			w.comeNext(2)
			if steered {
				w.expireRelief(1)
			}
			if r := w.results()[request]; r.Outcome != OutcomeUpgraded || w.m.current.Number != 2 || w.m.rolling != nil || w.readies(2) != 4 {
				t.Errorf("the answer is %+v, and generation %d is current", r, w.m.current.Number)
			}
		})
	}
}

func TestRollingKeepsWithinItsSurge(t *testing.T) {
	w := servingWith(t, rollingPolicy(2, true))
	w.request()
	w.answerPrepare(2, true)
	if ids := w.startNext(2); len(ids) != 2 {
		t.Fatalf("instances %v start", ids)
	}
	w.checkReadies(t, 4, 0)
	first := w.m.find(2).instances[0]
	w.readiness(first.ID, false)
	w.checkReadies(t, 3, 1)
	if len(w.starting) > 0 || w.steered.Beside != 2 || w.steered.Share != Whole/4 {
		t.Errorf("%d more start, and connections go to %+v", len(w.starting), w.steered)
	}
	if w.leaveNext(); len(w.starting) != 1 {
		t.Errorf("%d start in the place of one that has ended", len(w.starting))
	}
}

func TestStopFirstWaitsForTheEndOfTheOldInstance(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			p := rollingPolicy(0, steered)
			p.Instances = 1
			w := servingWith(t, p)
			request := w.request()
			w.answerPrepare(2, true)
			if len(w.starting) > 0 || len(w.said(ServingPaused)) != 1 {
				t.Fatalf("%v start, %+v", w.starting, w.said(ServingPaused))
			}
			parked := func(a Action) bool { r, ok := a.(Regroup); return ok && r.Park == 1 }
			if !slices.ContainsFunc(w.seen, parked) {
				t.Error("connections do not wait")
			}
			w.leaveNext()
			w.comeNext(2)
			if r := w.results()[request]; r.Outcome != OutcomeUpgraded || len(w.said(ServingResumed)) != 1 {
				t.Errorf("the answer is %+v", r)
			}
		})
	}
}

func TestStopFirstGoesBack(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			p := rollingPolicy(0, steered)
			p.Instances = 1
			w := servingWith(t, p)
			request := w.request()
			w.answerPrepare(2, true)
			w.leaveNext()
			w.endInstance(w.startNext(2)[0], Exit{Code: 4})
			if r := w.results()[request]; r.Outcome != OutcomeFailed || r.Serving != 1 {
				t.Errorf("the answer is %+v", r)
			}
			w.comeNext(1)
			if w.checkReadies(t, 1, 0); w.m.rolling != nil || len(w.said(ServingResumed)) != 1 {
				t.Errorf("generation %d rolls", w.m.rolling.Number)
			}
		})
	}
}

// What is undone half way goes back as it has come: one instance after another, the old one first.
func TestRollingGoesBack(t *testing.T) {
	for name, steered := range steeredOrNot {
		for way, spoil := range map[string]func(w *world) (why Reason){
			"one does not start": func(w *world) Reason {
				w.answerStart(w.m.find(2).instances[2].ID, false)
				return Exit{Code: 1, NotRun: "no process is left", Shortage: true}
			},
			"one exits": func(w *world) Reason {
				w.endInstance(w.startNext(2)[0], Exit{Code: 4})
				return InstanceExited{Exit{Code: 4}}
			},
			"one is late": func(w *world) Reason {
				id := w.startNext(2)[0]
				pid := w.m.instances[id].PID
				w.expirePhase(id)
				return NotReadyInTime{Instance: id, PID: pid, After: w.m.policy.ReadyTimeout}
			},
			"a rollback": func(w *world) Reason {
				w.startNext(2)
				w.rollback()
				return AskedBack
			},
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				w, request := rolled(t, rollingPolicy(1, steered), 2)
				why := spoil(w)
				if r := w.results()[request]; r.Outcome != OutcomeUndone || r.Serving != 1 || !has(r.Why, why) {
					t.Errorf("the answer is %+v, and not %+v", r, why)
				}
				for range 4 {
					if sum := w.readies(1) + w.readies(2); sum < 4 {
						t.Fatalf("%d instances serve", sum)
					}
					w.leaveNext()
					w.comeNext(1)
				}
				if w.checkReadies(t, 4, 0); w.m.rolling != nil || w.m.candidate != nil || w.m.current.Number != 1 {
					t.Errorf("generation %d is current: %v", w.m.current.Number, w)
				}
				for request, r := range w.results() {
					if r.Outcome != OutcomeUndone && (r.Outcome != OutcomeUpgraded || r.Generation != 1) {
						t.Errorf("request %d is answered %+v", request, r)
					}
				}
				if len(w.asked) > 0 {
					t.Errorf("requests %v are not answered", w.asked)
				}
			})
		}
	}
}

// What crashes in the old generation gives its place to the new one.
func TestOldInstanceIsNotRestartedInARollingUpgrade(t *testing.T) {
	w, _ := rolled(t, rollingPolicy(1, true), 1)
	w.crash(w.m.find(1).instances[0].ID)
	w.checkReadies(t, 2, 1)
	w.comeNext(2)
	w.leaveNext()
	w.comeNext(2)
	w.leaveNext()
	w.comeNext(2)
	if w.m.current.Number != 2 || w.readies(2) != 4 {
		t.Errorf("generation %d is current: %v", w.m.current.Number, w)
	}
}

// has reports whether a reason is another one, or has it.
func has(why, part Reason) bool {
	if two, ok := why.(Both); ok {
		return has(two.First, part) || has(two.Second, part)
	}
	return why == part
}

func TestRollingEndsWithAStop(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			w, request := rolled(t, rollingPolicy(1, steered), 2)
			w.happen(StopRequested{})
			if r := w.results()[request]; r.Outcome != OutcomeFailed || r.Why != GraceStopping {
				t.Errorf("the answer is %+v", r)
			}
			w.unwind()
		})
	}
}

// The next grace process goes on with it.
func TestRollingGoesOnAfterAKill(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			w, _ := rolled(t, rollingPolicy(1, steered), 2)
			w.kill()
			for range 2 {
				w.comeNext(2)
				w.leaveNext()
			}
			if w.m.current.Number != 2 || w.readies(2) != 4 || w.m.rolling != nil {
				t.Errorf("generation %d is current, with %d instances", w.m.current.Number, w.readies(2))
			}
		})
	}
}
