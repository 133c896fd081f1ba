package machine

import (
	"syscall"
	"testing"
	"time"
)

func stageOf(w *world, generation int) Stage {
	if g := w.m.find(generation); g != nil {
		return g.Stage
	}
	return StageEnded
}

func TestSteeredGenerationIsToldToStopWhenItIsQuiet(t *testing.T) {
	w := replaced(t)
	if stageOf(w, 1) != StageSettling || w.steered.Generation != 2 {
		t.Fatalf("generation 1 is %s, connections go to %d", stageOf(w, 1), w.steered)
	}
	w.expireRelief(1)
	if !w.observed[1] || w.m.instances[1].Phase != PhaseReady {
		t.Fatalf("observed %v, instance 1 is %s", w.observed, w.m.instances[1].Phase)
	}
	w.quiet(1)
	if w.m.instances[1].Phase != PhaseDraining {
		t.Fatalf("instance 1 is %s", w.m.instances[1].Phase)
	}
	w.endInstance(1, Exit{})
	if stageOf(w, 1) != StageEnded || len(w.said(GenerationToldToStop)) != 1 {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
}

// lastExit is how the process ended that ended last.
func (w *world) lastExit() Exit {
	ended := w.said(InstanceEnded, InstanceFailed, InstanceCrashed)
	return ended[len(ended)-1].Why.(Exit)
}

func until(empty, drain time.Duration) Reason {
	if empty < drain {
		return StopsWhenIdleOr{empty}
	}
	return StopsWhenIdle
}

func TestIdleConnectionsAreWaitedForAsLongAsIsWanted(t *testing.T) {
	for _, empty := range []time.Duration{0, time.Second, anyPolicy().DrainTimeout} {
		t.Run(empty.String(), func(t *testing.T) {
			p := steeredPolicy()
			p.Empty = empty
			w := servingWith(t, p)
			w.upgrade(t)
			w.expireRelief(1)
			if w.patience[1] != empty || stageOf(w, 1) != StageEmptying {
				t.Errorf("idle connections of a generation that is %s are waited for %s", stageOf(w, 1), w.patience[1])
			}
			told := w.said(GenerationEmptying)
			if len(told) != 1 || told[0].Why != until(empty, p.DrainTimeout) {
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
	w.happen(Counted{Generation: 1, InFlight: 2})
	w.expireRelief(1)
	if w.m.instances[1].Phase != PhaseDraining || len(w.said(EmptyTimedOut)) != 1 {
		t.Errorf("instance 1 is %s", w.m.instances[1].Phase)
	}
	w.endInstance(1, Exit{})
	if r := w.said(GenerationDrained); len(r) != 1 || r[0].Why != (StoppedInFlight{2}) {
		t.Errorf("reports %+v", r)
	}
}

// What was counted before is over when nothing goes on any more.
func TestGenerationWithoutOpenWorkHasDrained(t *testing.T) {
	for empty, want := range map[time.Duration]Reason{anyPolicy().DrainTimeout: HasDrained, 0: StoppedInFlight{2}} {
		p := steeredPolicy()
		p.Empty = empty
		w := servingWith(t, p)
		w.upgrade(t)
		w.expireRelief(1)
		w.happen(Counted{Generation: 1, InFlight: 2})
		w.quiet(1)
		w.endInstance(1, Exit{Signal: syscall.SIGTERM})
		if r := w.said(GenerationDrained); len(r) != 1 || r[0].Why != want {
			t.Errorf("with --empty %v: %+v", empty, r)
		}
	}
}

func TestUpgradeIsUndoneIfTheNewGenerationDiesWhileItSettles(t *testing.T) {
	for name, die := range map[string]func(w *world){
		"it crashes":         func(w *world) { w.endInstance(2, Exit{Code: 3}) },
		"it ends":            func(w *world) { w.endInstance(2, Exit{}) },
		"the watchdog barks": func(w *world) { w.expire(w.m.instances[2].watchdog.Number); w.endInstance(2, Exit{Code: 3}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := replaced(t)
			die(w)
			if w.m.current.Number != 1 || stageOf(w, 1) != StageCurrent || w.steered.Generation != 1 || stageOf(w, 2) != StageEnded {
				t.Fatalf("generation 1 is %s, 2 is %s, connections go to %d", stageOf(w, 1), stageOf(w, 2), w.steered)
			}
			undone := w.said(UpgradeUndone)
			if len(undone) != 1 || undone[0].Serving != 1 || undone[0].Why != (InstanceExited{w.lastExit()}) {
				t.Errorf("reports: %+v", undone)
			}
			w.upgrade(t)
			if w.steered.Generation != 3 {
				t.Errorf("connections go to %d after the next upgrade", w.steered)
			}
		})
	}
}

func TestGenerationThatTakesOverAgainIsMadeWhole(t *testing.T) {
	p := steeredPolicy()
	p.Instances = 2
	for name, lose := range map[string]func(w *world){
		"an instance has crashed while it settled": func(w *world) { w.upgrade(t); w.endInstance(1, Exit{Code: 3}) },
		"an instance was to be started again":      func(w *world) { w.endInstance(1, Exit{Code: 3}); w.upgrade(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := servingWith(t, p)
			lose(w)
			w.endInstance(w.m.current.instances[0].ID, Exit{Code: 3})
			if w.m.current.Number != 1 || len(w.m.current.instances) != 2 {
				t.Fatalf("generation %d is current, with %d instances", w.m.current.Number, len(w.m.current.instances))
			}
			next := w.m.current.instances[1]
			if next.Phase == PhaseBackoff {
				w.expirePhase(next.ID)
			}
			w.answerStart(next.ID, true)
			w.readiness(next.ID, false)
			if next.Phase != PhaseReady || next.Slot != 0 {
				t.Errorf("%+v", next)
			}
		})
	}
}

func TestGenerationThatStopsByItselfCannotTakeOver(t *testing.T) {
	w := replaced(t)
	w.happen(Withdrawn{1})
	w.endInstance(2, Exit{Code: 3})
	if w.m.current.Number != 2 || w.steered.Generation != 2 || len(w.said(InstanceRestarting)) != 1 {
		t.Errorf("generation %d is current, connections go to %d", w.m.current.Number, w.steered)
	}
}

func TestCrashAfterTheSettlingIsARestart(t *testing.T) {
	w := replaced(t)
	w.expireRelief(1)
	w.crash(2)
	if w.m.current.Number != 2 || len(w.said(InstanceRestarting)) != 1 {
		t.Errorf("generation %d is current", w.m.current.Number)
	}
}

func TestCrashOfAReplacedGenerationEndsIt(t *testing.T) {
	w := replaced(t)
	w.crash(1)
	w.quiet(1)
	if stageOf(w, 1) != StageEnded || w.m.current.Number != 2 {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
	w.crash(2)
	if len(w.said(InstanceRestarting)) != 1 {
		t.Error("generation 2 is not restarted")
	}
}

func TestGenerationWithoutAReadyInstanceCannotTakeOver(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.crash(1)
	w.upgrade(t)
	w.crash(3)
	if w.m.current.Number != 2 || stageOf(w, 1) != StageEmptying || len(w.said(InstanceRestarting)) != 2 {
		t.Errorf("generation %d is current, 1 is %s", w.m.current.Number, stageOf(w, 1))
	}
	w.quiet(1)
	if stageOf(w, 1) != StageEnded || len(w.starting) > 0 {
		t.Errorf("generation 1 is %s, %d are being started", stageOf(w, 1), len(w.starting))
	}
}

// awaitedAgain has generation 1 crash, be replaced, and be started again for connections that wait.
func awaitedAgain(t *testing.T) (*world, *instance) {
	w := servingWith(t, steeredPolicy())
	w.crash(1)
	w.upgrade(t)
	w.happen(Awaited{1})
	i := w.m.instances[2]
	if i == nil || i.Phase != PhaseStarting || stageOf(w, 1) != StageEmptying {
		t.Fatalf("instance 2 is %+v, generation 1 is %s", i, stageOf(w, 1))
	}
	return w, i
}

func TestWhoWaitsForACrashedGenerationIsAnsweredByIt(t *testing.T) {
	w, i := awaitedAgain(t)
	w.answerStart(i.ID, true)
	w.happen(Awaited{1})
	w.readiness(i.ID, false)
	if w.quiet(1); i.Phase != PhaseReady || !w.observed[1] {
		t.Fatalf("instance 2, which was not looked at, is %s", i.Phase)
	}
	if w.quiet(1); i.Phase != PhaseDraining {
		t.Fatalf("instance 2 is %s", i.Phase)
	}
	w.endInstance(i.ID, Exit{})
	if stageOf(w, 1) != StageEnded || w.m.current.Number != 2 || w.steered.Generation != 2 {
		t.Errorf("generation 1 is %s, %d is current", stageOf(w, 1), w.m.current.Number)
	}
}

// The first start comes at once, and later ones as ever.
func TestWhatCrashesAgainIsStartedAgainForWhoWaits(t *testing.T) {
	w, i := awaitedAgain(t)
	w.answerStart(i.ID, true)
	w.crash(i.ID)
	next := w.m.find(1).instances[0]
	if w.happen(Awaited{1}); next.Phase != PhaseBackoff {
		t.Fatalf("instance %d is %s at once", next.ID, next.Phase)
	}
	if w.expirePhase(next.ID); next.Phase != PhaseBackoff {
		t.Fatalf("instance %d is %s for nobody", next.ID, next.Phase)
	}
	if w.happen(Awaited{1}); next.Phase != PhaseStarting {
		t.Fatalf("instance %d is %s", next.ID, next.Phase)
	}
	w.answerStart(next.ID, false)
	if w.expireRelief(1); stageOf(w, 1) != StageEnded {
		t.Errorf("generation 1 is %s after --drain-timeout", stageOf(w, 1))
	}
}

func TestRestartThatIsUnderWayGoesOnForWhoWaits(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.crash(1)
	w.expirePhase(2)
	w.answerStart(2, true)
	w.upgrade(t)
	i := w.m.instances[2]
	if i.Phase != PhaseStarting || stageOf(w, 1) != StageEmptying {
		t.Fatalf("instance 2 is %s, generation 1 is %s", i.Phase, stageOf(w, 1))
	}
	if w.quiet(1); i.Phase != PhaseDraining {
		t.Errorf("nobody waits, and instance 2 is %s", i.Phase)
	}
}

func TestStopStartsNothingForWhoWaits(t *testing.T) {
	w, i := awaitedAgain(t)
	w.happen(StopRequested{})
	if i.Phase != PhaseDraining || stageOf(w, 1) != StageDraining {
		t.Errorf("instance 2 is %s, generation 1 is %s", i.Phase, stageOf(w, 1))
	}
}

func TestGenerationThatIsNotToBeRestartedEndsWithItsInstance(t *testing.T) {
	p := steeredPolicy()
	p.Restart = RestartNever
	w := servingWith(t, p)
	w.upgrade(t)
	w.crash(1)
	if stageOf(w, 1) != StageEnded || len(w.m.history) != 1 {
		t.Errorf("generation 1 is %s, and the history is %+v", stageOf(w, 1), w.m.history)
	}
}

func TestNextUpgradeEndsTheSettling(t *testing.T) {
	w := replaced(t)
	w.upgrade(t)
	if stageOf(w, 1) != StageEmptying || stageOf(w, 2) != StageSettling || w.steered.Generation != 3 {
		t.Errorf("generation 1 is %s, 2 is %s, connections go to %d", stageOf(w, 1), stageOf(w, 2), w.steered)
	}
}

func TestGenerationsThatWereReplacedCountAsDraining(t *testing.T) {
	p := steeredPolicy()
	p.MaxDraining = 1
	w := servingWith(t, p)
	w.upgrade(t)
	w.happen(UpgradeRequested{})
	if w.m.candidate != nil || len(w.said(UpgradeWaiting)) != 1 {
		t.Error("the upgrade does not wait")
	}
}

// toldToStop has generation 1 of its own sockets in service, and grace told to stop.
func toldToStop(t *testing.T, p Policy) *world {
	w := servingWith(t, p)
	w.happen(StopRequested{})
	return w
}

func TestStopLetsAGenerationFinishBeforeItIsTold(t *testing.T) {
	w := toldToStop(t, steeredPolicy())
	if stageOf(w, 1) != StageEmptying || !w.closed || !w.observed[1] || w.m.instances[1].Phase != PhaseReady {
		t.Fatalf("generation 1 is %s, new connections are turned away: %v", stageOf(w, 1), w.closed)
	}
	w.at = w.at.Add(10 * time.Second)
	w.quiet(1)
	i := w.m.instances[1]
	if i.Phase != PhaseDraining {
		t.Fatalf("instance 1 is %s", i.Phase)
	}
	if left, all := i.deadline.Sub(w.at), w.m.policy.DrainTimeout; left > all-10*time.Second || left < all-11*time.Second {
		t.Errorf("it has %s to end", left)
	}
	w.endInstance(1, Exit{Signal: syscall.SIGTERM})
	if !w.finished || w.status != 0 {
		t.Errorf("finished %v with status %d", w.finished, w.status)
	}
}

// A service manager kills after --drain-timeout.
func TestEmptyingAndDrainingHaveOneDrainTimeout(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, w *world){
		"an upgrade": func(t *testing.T, w *world) {
			w.upgrade(t)
			w.expireRelief(1) // the end of --settle
		},
		"a stop": func(t *testing.T, w *world) { w.happen(StopRequested{}) },
		"a stop while it empties": func(t *testing.T, w *world) {
			w.upgrade(t)
			w.expireRelief(1)
			w.at = w.at.Add(time.Second)
			w.happen(StopRequested{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := servingWith(t, steeredPolicy())
			leave(t, w)
			g := w.m.find(1)
			if g.Stage != StageEmptying {
				t.Fatalf("generation 1 is %s", g.Stage)
			}
			all := w.m.policy.DrainTimeout
			end := g.Since.Add(all)
			w.at = g.Since.Add(w.after(t, Timer{leaving: 1}))
			w.expireRelief(1)
			i := w.m.instances[1]
			if i.Phase != PhaseDraining {
				t.Fatalf("instance 1 is %s", i.Phase)
			}
			if late := i.deadline.Sub(end); late > time.Second || i.deadline.Sub(w.at) < all/5 {
				t.Errorf("it is killed %s after --drain-timeout, and has %s to end", late, i.deadline.Sub(w.at))
			}
		})
	}
}

func TestInstanceThatStopsByItselfWhileItsGenerationEmptiesHasWhatIsLeft(t *testing.T) {
	w := replaced(t)
	w.expireRelief(1)
	w.at = w.at.Add(10 * time.Second)
	w.happen(Withdrawn{1})
	if left := w.m.instances[1].deadline.Sub(w.at); left > w.m.policy.DrainTimeout-10*time.Second {
		t.Errorf("it has %s to end", left)
	}
}

// after is how long the timer that was armed last for this runs.
func (w *world) after(t *testing.T, which Timer) (d time.Duration) {
	t.Helper()
	for _, a := range w.seen {
		if a, ok := a.(Arm); ok && a.Timer.leaving == which.leaving {
			d = a.After
		}
	}
	if d == 0 {
		t.Fatalf("no timer for %+v", which)
	}
	return d
}

func TestSecondSignalEndsTheEmptying(t *testing.T) {
	w := toldToStop(t, steeredPolicy())
	w.at = w.at.Add(time.Second)
	w.happen(StopRequested{})
	if w.m.instances[1].Phase != PhaseKilling || stageOf(w, 1) != StageDraining {
		t.Errorf("instance 1 is %s, generation 1 %s", w.m.instances[1].Phase, stageOf(w, 1))
	}
}

func TestStopEmptiesAllGenerationsThatServe(t *testing.T) {
	w := replaced(t)
	w.upgrade(t) // 1 empties, 2 settles
	w.happen(StopRequested{})
	for generation := 1; generation <= 3; generation++ {
		if stageOf(w, generation) != StageEmptying || !w.observed[generation] {
			t.Errorf("generation %d is %s", generation, stageOf(w, generation))
		}
	}
	if d := w.after(t, Timer{leaving: 1}); d >= w.m.policy.DrainTimeout {
		t.Errorf("generation 1 has %s more to get quiet", d)
	}
}

func TestStopEndsAtOnceWhatServesNobody(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.crash(1)
	w.happen(StopRequested{})
	if !w.finished {
		t.Error("grace waits for a generation without an instance")
	}
}

func TestStopEmptiesAfterTheDrainDelay(t *testing.T) {
	p := steeredPolicy()
	p.DrainDelay = 5 * time.Second
	w := toldToStop(t, p)
	if stageOf(w, 1) != StageCurrent || w.closed {
		t.Fatalf("generation 1 is %s", stageOf(w, 1))
	}
	w.expire(w.m.delay.Number)
	if stageOf(w, 1) != StageEmptying || !w.closed {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
}

func TestInstanceThatEndsWhileGraceStopsIsNotStartedAgain(t *testing.T) {
	w := toldToStop(t, steeredPolicy())
	w.endInstance(1, Exit{Code: 3})
	if !w.finished || w.status != 0 || len(w.said(InstanceRestarting)) > 0 {
		t.Errorf("finished %v with status %d", w.finished, w.status)
	}
}

func sharedPolicy() Policy {
	p := steeredPolicy()
	p.Held, p.Shared = true, true
	return p
}

// A held socket is accepted from by both, so the old generation is not to stay for long.
func TestGenerationWithAPortBesideASharedSocketIsToldSoon(t *testing.T) {
	w := servingWith(t, sharedPolicy())
	w.happen(Opened{1})
	w.upgrade(t)
	if stageOf(w, 1) != StageEmptying || w.patience[1] != 0 || w.after(t, Timer{leaving: 1}) != besideShared {
		t.Fatalf("generation 1 is %s, and waits %s for idle connections", stageOf(w, 1), w.patience[1])
	}
	w.quiet(1)
	if stageOf(w, 1) != StageDraining {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
}

func TestGenerationWithoutAPortOfItsOwnIsToldAtOnce(t *testing.T) {
	w := servingWith(t, sharedPolicy())
	w.upgrade(t)
	if stageOf(w, 1) != StageDraining {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
	w.happen(StopRequested{})
	if stageOf(w, 2) != StageDraining {
		t.Errorf("generation 2 is %s", stageOf(w, 2))
	}
}

// cuttingOver has generation 2 ready, and new connections not sent to it yet. The upgrade was asked for by request 1.
func cuttingOver(t *testing.T, p Policy) *world {
	w := servingWith(t, p)
	w.slow = true
	w.happen(UpgradeRequested{Request: w.ask()})
	w.bring(t)
	if stageOf(w, 1) != StageSettling || stageOf(w, 2) != StageCurrent || len(w.cutovers) != 1 {
		t.Fatalf("generation 1 is %s, 2 is %s, cutovers %v", stageOf(w, 1), stageOf(w, 2), w.cutovers)
	}
	return w
}

func TestNothingFollowsFromAnUpgradeBeforeConnectionsHaveGoneOver(t *testing.T) {
	now := steeredPolicy()
	now.Settle = 0
	for name, c := range map[string]struct {
		policy   Policy
		then     Stage
		upgraded bool
	}{
		"it settles":                      {steeredPolicy(), StageSettling, false},
		"it empties":                      {now, StageEmptying, true},
		"it has no socket but those held": {sharedPolicy(), StageDraining, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := cuttingOver(t, c.policy)
			if w.observed[1] || w.m.instances[1].Phase != PhaseReady || w.answered(1) != nil || w.m.Calm() {
				t.Fatalf("instance 1 is %s, the request is answered with %+v", w.m.instances[1].Phase, w.answered(1))
			}
			if r := w.said(GenerationReady); len(r) > 0 {
				t.Errorf("who connects may come to generation 1, and the log says %+v", r)
			}
			w.answerSteer("")
			if r := w.said(GenerationReady); len(r) != 1 || r[0].Generation != 2 {
				t.Errorf("the log says %+v", r)
			}
			if stageOf(w, 1) != c.then || (w.answered(1) != nil) != c.upgraded {
				t.Errorf("generation 1 is %s, the request is answered with %+v", stageOf(w, 1), w.answered(1))
			}
			w.unwind()
		})
	}
}

func TestCandidateThatDiesBeforeConnectionsHaveGoneOver(t *testing.T) {
	for _, p := range []Policy{steeredPolicy(), sharedPolicy()} {
		w := cuttingOver(t, p)
		w.endInstance(2, Exit{Code: 3})
		if w.m.current.Number != 1 || stageOf(w, 2) != StageEnded || w.m.instances[1].Phase != PhaseReady {
			t.Fatalf("generation %d is current, 2 is %s", w.m.current.Number, stageOf(w, 2))
		}
		w.answerSteer("")
		if r := w.answered(1); r != nil {
			t.Errorf("%+v before connections have gone back", r)
		}
		w.answerSteer("")
		if r := w.answered(1); r == nil || r.Outcome != OutcomeUndone || r.Serving != 1 {
			t.Errorf("%+v", r)
		}
		if w.steered.Generation != 1 || stageOf(w, 1) != StageCurrent || !w.m.Calm() {
			t.Errorf("connections go to %d, generation 1 is %s", w.steered, stageOf(w, 1))
		}
	}
}

// What the failed generation has accepted on its other instance it can finish.
func TestUndoneGenerationEmptiesWhatStillServes(t *testing.T) {
	p := steeredPolicy()
	p.Instances = 2
	w := servingWith(t, p)
	w.upgrade(t)
	w.endInstance(3, Exit{Code: 3})
	if w.m.current.Number != 1 || stageOf(w, 2) != StageEmptying || w.m.instances[4].Phase != PhaseReady || !w.observed[2] {
		t.Fatalf("generation %d is current, 2 is %s", w.m.current.Number, stageOf(w, 2))
	}
	w.endInstance(4, Exit{Code: 3})
	if stageOf(w, 2) != StageEnded || len(w.said(InstanceRestarting)) > 0 {
		t.Errorf("generation 2 is %s", stageOf(w, 2))
	}
}

func TestStopWhileConnectionsGoOver(t *testing.T) {
	for name, stop := range map[string]Event{"TERM": StopRequested{}, "QUIT": KillRequested{}} {
		for _, p := range []Policy{steeredPolicy(), sharedPolicy()} {
			w := cuttingOver(t, p)
			w.happen(stop)
			if r := w.answered(1); r == nil || r.Outcome != OutcomeUpgraded {
				t.Fatalf("%s: %+v", name, r)
			}
			for w.m.goesOver() {
				w.answerSteer("")
			}
			if name == "TERM" && !p.Shared && (stageOf(w, 1) != StageEmptying || stageOf(w, 2) != StageEmptying) {
				t.Errorf("generation 1 is %s, 2 is %s", stageOf(w, 1), stageOf(w, 2))
			}
			w.unwind()
		}
	}
}

func TestUpgradeIsUndoneIfConnectionsCannotBeSentToIt(t *testing.T) {
	for name, fail := range map[string]struct {
		happen func(w *world)
		why    Reason
	}{
		"the kernel refuses":  {func(w *world) { w.answerSteer("no memory") }, NotSteered{2, Said("no memory")}},
		"it has not answered": {func(w *world) { w.expire(w.m.cutover.Number) }, NotSteered{2, NoAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			w := cuttingOver(t, steeredPolicy())
			fail.happen(w)
			if stageOf(w, 2) != StageEmptying || w.m.instances[2].Phase != PhaseReady {
				t.Errorf("generation 2 is %s", stageOf(w, 2))
			}
			for len(w.cutovers) > 0 {
				w.answerSteer("")
			}
			undone := w.said(UpgradeUndone)
			if w.m.current.Number != 1 || len(undone) != 1 || undone[0].Why != fail.why || w.answered(1).Outcome != OutcomeUndone {
				t.Fatalf("generation %d is current, reports %+v", w.m.current.Number, undone)
			}
			w.quiet(2)
			if w.steered.Generation != 1 || stageOf(w, 2) != StageDraining {
				t.Errorf("connections go to %d, generation 2 is %s", w.steered, stageOf(w, 2))
			}
		})
	}
}

// There is nobody else to serve.
func TestFirstGenerationServesAlthoughItsCutoverFails(t *testing.T) {
	w := newWorld(t, steeredPolicy())
	w.slow = true
	w.answerPrepare(1, true)
	w.answerStart(1, true)
	w.readiness(1, false)
	w.answerSteer("no memory")
	if stageOf(w, 1) != StageCurrent || len(w.said(SteeringFailed)) != 1 || !w.m.Calm() {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
}

func TestNextUpgradeBeforeConnectionsHaveGoneOver(t *testing.T) {
	w := cuttingOver(t, steeredPolicy())
	w.happen(UpgradeRequested{Request: w.ask()})
	w.bring(t)
	if stageOf(w, 1) != StageEmptying || stageOf(w, 2) != StageSettling || w.answered(2) != nil {
		t.Fatalf("generation 1 is %s, 2 is %s", stageOf(w, 1), stageOf(w, 2))
	}
	w.answerSteer("")
	if w.expire(w.m.cutover.Number); w.m.current.Number != 2 {
		t.Fatalf("generation %d is current though its connections are still to come", w.m.current.Number)
	}
	w.unwind()
}
