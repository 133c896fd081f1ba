package machine

import (
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"
)

// said gives the reports of the whole run about one of the facts.
func (w *world) said(about ...Fact) []Report {
	var found []Report
	for _, a := range w.seen {
		if r, ok := a.(Report); ok && slices.Contains(about, r.Fact) {
			found = append(found, r)
		}
	}
	return found
}

func (w *world) upgrade(t *testing.T) {
	t.Helper()
	w.happen(UpgradeRequested{})
	if g := w.bring(t); w.m.current != g {
		t.Fatalf("generation %d is not current", g.Number)
	}
}

func (w *world) endInstance(id int, exit Exit) {
	p := w.processes[w.m.instances[id].PID]
	w.end(p, exit)
	w.happen(Emptied{id, p.pid})
}

func TestUpgradeTellsTheOldGenerationOnlyWhenTheNewOneIsReady(t *testing.T) {
	w, candidate := candidateStarted(t)
	if got := w.m.instances[1].Phase; got != PhaseReady {
		t.Fatalf("the old instance is %s while the new one starts", got)
	}
	w.readiness(candidate.ID, false)
	if got := w.m.instances[1].Phase; got != PhaseDraining {
		t.Fatalf("the old instance is %s after the new one was ready", got)
	}
	w.endInstance(1, Exit{})
	if len(w.said(GenerationDrained)) != 1 || len(w.m.generations) != 1 {
		t.Errorf("the old generation has not ended: %v", w)
	}
}

func TestManyRequestsCauseOneMoreUpgrade(t *testing.T) {
	w, candidate := candidateStarted(t)
	for range 1000 {
		w.happen(UpgradeRequested{})
	}
	w.readiness(candidate.ID, false)
	if w.m.candidate == nil || w.m.candidate.Number != 3 || w.m.pending != nil {
		t.Fatalf("candidate %+v, waiting %v", w.m.candidate, w.m.pending)
	}
	if n := len(w.said(UpgradeWaiting)); n != 1 {
		t.Errorf("the log says %d times that the upgrade waits", n)
	}
}

func TestCandidateThatExitsFailsTheUpgrade(t *testing.T) {
	w, candidate := candidateStarted(t)
	w.endInstance(candidate.ID, Exit{Code: 3})
	failed := w.said(UpgradeFailed)
	if len(failed) != 1 || failed[0].Serving != 1 || failed[0].Why != (InstanceExited{Exit{Code: 3}}) {
		t.Fatalf("reports: %+v", failed)
	}
	if w.m.candidate != nil || w.m.current.Number != 1 || len(w.starting) > 0 {
		t.Errorf("the failed candidate is still there: %v", w)
	}
}

func TestFailedCandidateIsNeverPromoted(t *testing.T) {
	w, candidate := candidateStarted(t)
	w.expirePhase(candidate.ID)
	w.readiness(candidate.ID, true)
	if w.m.current.Number != 1 || candidate.Phase != PhaseDraining {
		t.Errorf("generation %d is current, the candidate is %s", w.m.current.Number, candidate.Phase)
	}
}

func TestNotReadyInTimeSaysWhy(t *testing.T) {
	w, candidate := candidateStarted(t)
	w.happen(Unreadied{candidate.ID, "nothing in it waits on web"})
	w.expirePhase(candidate.ID)
	want := NotReadyInTime{Instance: 2, PID: 2, After: w.m.policy.ReadyTimeout, More: Said("nothing in it waits on web")}
	if r := w.said(UpgradeFailed)[0]; r.Why != want {
		t.Errorf("why: %+v", r.Why)
	}
}

func TestCandidateReplacesADeadCurrent(t *testing.T) {
	p := anyPolicy()
	p.Restart = RestartNever
	w := servingWith(t, p)
	w.happen(UpgradeRequested{})
	w.answerPrepare(2, true)
	w.answerStart(2, true)
	w.endInstance(1, Exit{Code: 1})
	if w.finished {
		t.Fatal("grace ended while a candidate starts")
	}
	w.readiness(2, false)
	if w.m.current.Number != 2 {
		t.Errorf("generation %d is current", w.m.current.Number)
	}
}

func TestDeadCurrentAndFailedCandidateEndGrace(t *testing.T) {
	p := anyPolicy()
	p.Restart = RestartNever
	w := servingWith(t, p)
	w.happen(UpgradeRequested{})
	w.endInstance(1, Exit{Code: 9})
	w.answerPrepare(2, false)
	if !w.finished || w.status != 9 {
		t.Errorf("finished %v with %d", w.finished, w.status)
	}
}

func TestUpgradeDoesNotWaitForBackoff(t *testing.T) {
	w := serving(t)
	w.crash(1)
	w.upgrade(t)
	if _, waits := w.m.instances[2]; waits {
		t.Error("the replaced generation still waits for its restart")
	}
}

func TestMaxDraining(t *testing.T) {
	p := anyPolicy()
	p.MaxDraining = 2
	w := servingWith(t, p)
	w.upgrade(t)
	w.upgrade(t)
	w.happen(UpgradeRequested{})
	if w.m.candidate != nil || len(w.said(UpgradeWaiting)) != 1 {
		t.Fatalf("the third upgrade does not wait: %v", w)
	}
	w.endInstance(2, Exit{})
	if w.m.candidate == nil {
		t.Error("it still waits after a generation has ended")
	}
}

func TestInstanceIsReplacedInItsGeneration(t *testing.T) {
	p := anyPolicy()
	p.Instances = 2
	w := servingWith(t, p)
	w.crash(2)
	w.expirePhase(3)
	w.answerStart(3, true)
	w.readiness(3, false)
	i := w.m.instances[3]
	if i.generation.Number != 1 || i.Slot != 1 || i.Phase != PhaseReady || w.m.instances[1].Phase != PhaseReady {
		t.Errorf("replacement %+v", i)
	}
}

func TestOneFailedInstanceFailsTheWholeCandidate(t *testing.T) {
	p := anyPolicy()
	p.Instances = 2
	w := servingWith(t, p)
	w.happen(UpgradeRequested{})
	w.answerPrepare(2, true)
	w.answerStart(3, true)
	w.readiness(3, false)
	w.answerStart(4, false)
	if w.m.current.Number != 1 || w.m.instances[3].Phase != PhaseDraining {
		t.Errorf("generation %d is current; %v", w.m.current.Number, w)
	}
}

func TestFirstGenerationThatFailsEndsGraceWithItsStatus(t *testing.T) {
	for name, test := range map[string]struct {
		fail func(w *world)
		want int
		ran  bool
	}{
		"exit 3":      {func(w *world) { w.ready1(); w.endInstance(1, Exit{Code: 3}) }, 3, true},
		"exit 0":      {func(w *world) { w.ready1(); w.endInstance(1, Exit{}) }, 0, true},
		"signal":      {func(w *world) { w.ready1(); w.endInstance(1, Exit{Signal: syscall.SIGSEGV}) }, 139, true},
		"fork fails":  {func(w *world) { w.answerPrepare(1, true); w.answerStart(1, false) }, 1, false},
		"not found":   {func(w *world) { delete(w.preparing, 1); w.happen(PrepareFailed{1, "cannot find", 127}) }, 127, false},
		"never ready": {func(w *world) { w.ready1(); w.expirePhase(1); w.endInstance(1, Exit{}) }, 124, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, anyPolicy())
			test.fail(w)
			if !w.finished || w.status != test.want {
				t.Errorf("finished %v with %d, want %d", w.finished, w.status, test.want)
			}
			if r := w.said(FirstFailed); len(r) != 1 || gives(r[0].Why, SocketsUnused) != test.ran {
				t.Errorf("reports %+v", r)
			}
		})
	}
}

// gives reports whether a reason is, or has, a cause.
func gives(why Reason, cause Cause) bool {
	if two, ok := why.(Both); ok {
		return gives(two.First, cause) || gives(two.Second, cause)
	}
	return why == cause
}

// ready1 brings instance 1 to where only its readiness is missing.
func (w *world) ready1() {
	w.answerPrepare(1, true)
	w.answerStart(1, true)
}

func TestSlowStartSaysWhatItWaitsFor(t *testing.T) {
	w, candidate := candidateStarted(t)
	w.happen(Unreadied{candidate.ID, "nothing in it waits on web"})
	w.expire(candidate.generation.progress.Number)
	if r := w.said(InstanceNotReady); len(r) != 1 || r[0].Why != Said("nothing in it waits on web") {
		t.Errorf("reports %+v", r)
	}
	w.readiness(candidate.ID, false)
	if candidate.generation.progress.Number != 0 {
		t.Error("it goes on saying so")
	}
}

// Looking costs: nobody looks at an instance that is ready, or told to stop.
func TestWaitForReadinessEndsWithTheStart(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"ready":   func(w *world) { w.readiness(1, true) },
		"stopped": func(w *world) { w.happen(StopRequested{}) },
		"exited":  func(w *world) { w.end(w.processes[1], Exit{Code: 1}) },
		"late":    func(w *world) { w.expirePhase(1) },
	} {
		w := newWorld(t, anyPolicy())
		w.ready1()
		if slices.Contains(w.seen, Action(Dismiss{1})) {
			t.Fatalf("%s: dismissed before", name)
		}
		if end(w); !slices.Contains(w.seen, Action(Dismiss{1})) {
			t.Errorf("%s: it is still looked at", name)
		}
	}
}

func TestAppThatTouchedItsSocketIsNotSuspected(t *testing.T) {
	w := newWorld(t, anyPolicy())
	w.ready1()
	w.happen(Touched{1})
	w.endInstance(1, Exit{Code: 1})
	if r := w.said(FirstFailed)[0]; r.Why != (InstanceExited{Exit{Code: 1}}) {
		t.Errorf("why: %+v", r.Why)
	}
}

// TestObstacleIsTheReason: what was seen is told, and nothing is guessed beside it.
func TestObstacleIsTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(w *world)
		why  Reason
	}{
		"late": {func(w *world) { w.expirePhase(1) }, NotReadyInTime{
			Instance: 1, PID: 1, After: anyPolicy().ReadyTimeout, More: Both{Said("it does not wait"), Said("it is stopped")},
		}},
		"exited": {func(w *world) { w.endInstance(1, Exit{Code: 1}) }, Both{InstanceExited{Exit{Code: 1}}, Said("it is stopped")}},
	} {
		w := newWorld(t, anyPolicy())
		w.ready1()
		w.happen(Unreadied{1, "it does not wait"})
		w.happen(Obstructed{1, "it is stopped"})
		c.fail(w)
		r := w.said(FirstFailed)[0]
		if r.Why != c.why {
			t.Errorf("%s: %+v", name, r.Why)
		}
	}
	w := replaced(t)
	w.happen(Obstructed{2, "it is stopped"})
	w.endInstance(2, Exit{Code: 1})
	if r := w.said(UpgradeUndone)[0]; r.Serving != 1 || r.Why != (InstanceExited{Exit{Code: 1}}) {
		t.Errorf("of one that served: %+v", r)
	}
}

func TestRestartPolicies(t *testing.T) {
	crash, clean, term := Exit{Code: 1}, Exit{}, Exit{Signal: syscall.SIGTERM}
	for _, test := range []struct {
		policy Restart
		exit   Exit
		status int // -1: a restart
	}{
		{RestartOnFailure, crash, -1}, {RestartOnFailure, clean, 0}, {RestartOnFailure, term, 143},
		{RestartAlways, crash, -1}, {RestartAlways, clean, -1}, {RestartAlways, term, -1},
		{RestartNever, crash, 1}, {RestartNever, clean, 0}, {RestartNever, term, 143},
	} {
		p := anyPolicy()
		p.Restart = test.policy
		w := servingWith(t, p)
		w.endInstance(1, test.exit)
		switch {
		case test.status < 0 && (w.finished || w.m.instances[2].Phase != PhaseBackoff):
			t.Errorf("%s, %+v: no restart", test.policy, test.exit)
		case test.status >= 0 && (!w.finished || w.status != test.status):
			t.Errorf("%s, %+v: finished %v with %d", test.policy, test.exit, w.finished, w.status)
		}
	}
}

func TestStopDoesNotWaitForBackoff(t *testing.T) {
	w := serving(t)
	w.crash(1)
	w.happen(StopRequested{})
	if !w.finished || len(w.said(GenerationDrained)) != 1 {
		t.Errorf("finished %v, and said %v", w.finished, w.said(GenerationDrained))
	}
}

func TestBackoffDoublesAndIsForgottenAfterAHealthyMinute(t *testing.T) {
	w := serving(t)
	var waits []time.Duration
	for id := 1; id <= 4; id++ {
		w.crash(id)
		waits = append(waits, w.said(InstanceRestarting)[id-1].Within)
		w.expirePhase(id + 1)
		w.answerStart(id+1, true)
		w.readiness(id+1, false)
	}
	want := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}
	if !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	w.expirePhase(5) // the healthy minute
	w.crash(5)
	if got := w.said(InstanceRestarting)[4].Within; got != want[0] {
		t.Errorf("after a healthy minute: %s", got)
	}
	if backoffAfter(100) != longBackoff {
		t.Errorf("the longest is %s", backoffAfter(100))
	}
}

func TestStopStatuses(t *testing.T) {
	for name, test := range map[string]struct {
		stop func(w *world)
		want int
	}{
		"drained":     {func(w *world) { w.happen(StopRequested{}); w.endInstance(1, Exit{Signal: syscall.SIGTERM}) }, 0},
		"exited 1":    {func(w *world) { w.happen(StopRequested{}); w.endInstance(1, Exit{Code: 1}) }, 0},
		"over time":   {func(w *world) { w.happen(StopRequested{}); w.expirePhase(1); w.unwind() }, 137},
		"second TERM": {func(w *world) { w.stopTwice(2 * sameStop); w.unwind() }, 137},
		"QUIT":        {func(w *world) { w.happen(KillRequested{}); w.unwind() }, 137},
	} {
		t.Run(name, func(t *testing.T) {
			w := serving(t)
			test.stop(w)
			if !w.finished || w.status != test.want {
				t.Errorf("finished %v with %d, want %d", w.finished, w.status, test.want)
			}
		})
	}
}

// stopTwice sends the second of two stop signals so long after the first one.
func (w *world) stopTwice(apart time.Duration) {
	w.happen(StopRequested{})
	w.at = w.at.Add(apart)
	w.happen(StopRequested{})
}

// timeout of coreutils signals its child and then its whole process group, npm sends on what a terminal has sent to
// both, and a shell and the kernel each say HUP when a terminal closes.
func TestStopSignalThatComesTwiceIsOne(t *testing.T) {
	w := serving(t)
	w.stopTwice(sameStop / 2)
	if phase := w.m.instances[1].Phase; phase != PhaseDraining {
		t.Fatalf("the instance is %s after one stop that was sent twice", phase)
	}
	w.at = w.at.Add(sameStop)
	w.happen(StopRequested{})
	if phase := w.m.instances[1].Phase; phase != PhaseKilling {
		t.Errorf("the instance is %s after a second stop", phase)
	}
}

func TestDrainDelayIsNotCutByAStopThatComesTwice(t *testing.T) {
	p := anyPolicy()
	p.DrainDelay = 5 * time.Second
	w := servingWith(t, p)
	w.stopTwice(sameStop / 2)
	if w.m.mode != lingering || w.m.instances[1].Phase != PhaseReady {
		t.Errorf("it does not serve on: %v", w)
	}
}

// An app that has ended is no reason to take the first stop signal for a second one.
func TestFirstStopAfterTheEndOfTheAppIsNoSecondOne(t *testing.T) {
	p := anyPolicy()
	p.Restart = RestartNever
	w := servingWith(t, p)
	w.upgrade(t)
	w.endInstance(2, Exit{})
	w.happen(StopRequested{})
	if phase := w.m.instances[1].Phase; phase != PhaseDraining {
		t.Errorf("the old generation's instance is %s", phase)
	}
}

func TestStopInEveryPhaseOfAStart(t *testing.T) {
	w := newWorld(t, anyPolicy())
	w.happen(StopRequested{})
	if !slices.ContainsFunc(w.seen, func(a Action) bool { return a == Action(Abandon{1}) }) {
		t.Error("the preparation goes on")
	}
	w.answerPrepare(1, true)
	if !w.finished || w.status != 0 {
		t.Errorf("finished %v with %d", w.finished, w.status)
	}
	w = newWorld(t, anyPolicy())
	w.answerPrepare(1, true)
	w.happen(StopRequested{})
	w.answerStart(1, true)
	if !slices.Contains(w.seen, Action(Tell{1, syscall.SIGTERM})) {
		t.Error("an instance that was being forked was never told to stop")
	}
}

func TestDrainDelayServesOn(t *testing.T) {
	p := anyPolicy()
	p.DrainDelay = 5 * time.Second
	w := servingWith(t, p)
	w.happen(StopRequested{})
	if w.m.instances[1].Phase != PhaseReady {
		t.Fatal("it stopped at once")
	}
	w.happen(UpgradeRequested{})
	if len(w.said(UpgradeRefused)) != 1 {
		t.Error("an upgrade was taken")
	}
	w.crash(1)
	if w.m.instances[2].Phase != PhaseBackoff {
		t.Error("a crash is not followed by a restart")
	}
	w.expire(w.m.delay.Number)
	if !w.finished || w.status != 0 {
		t.Errorf("finished %v with %d", w.finished, w.status)
	}
}

func TestWatchdog(t *testing.T) {
	w := serving(t)
	first := w.m.instances[1].watchdog
	w.happen(Pinged{1})
	if w.m.instances[1].watchdog == first {
		t.Error("a sign of life does not count")
	}
	w.happen(TimerExpired{first})
	if w.m.instances[1].Phase != PhaseReady {
		t.Fatal("a late timer killed it")
	}
	w.expire(w.m.instances[1].watchdog.Number)
	w.endInstance(1, Exit{Signal: syscall.SIGKILL})
	if w.m.instances[2].Phase != PhaseBackoff {
		t.Error("a hung app is not restarted")
	}
	w.upgrade(t)
	if r := w.said(GenerationDrained); len(r) != 1 || r[0].Why != HasDrained {
		t.Errorf("reports %+v", r)
	}
}

func TestEndThatIsNoDrainSaysSo(t *testing.T) {
	for _, c := range []struct {
		inFlight int
		exit     Exit
		want     Reason
	}{
		{0, Exit{}, HasDrained},
		{3, Exit{}, HasDrained},
		{0, Exit{Signal: syscall.SIGTERM}, HasDrained},
		{0, Exit{Code: 143}, HasDrained},
		{0, Exit{Unknown: true}, HasDrained},
		{3, Exit{Signal: syscall.SIGTERM}, StoppedInFlight{3}},
		{0, Exit{Code: 1}, EndedOtherwise{1, Exit{Code: 1}}},
		{0, Exit{Signal: syscall.SIGSEGV}, EndedOtherwise{1, Exit{Signal: syscall.SIGSEGV}}},
	} {
		w := serving(t)
		w.upgrade(t)
		w.happen(Counted{Generation: 1, InFlight: c.inFlight})
		w.endInstance(1, c.exit)
		if r := w.said(GenerationDrained); len(r) != 1 || r[0].Why != c.want {
			t.Errorf("%d in flight, %+v: reports %+v", c.inFlight, c.exit, r)
		}
	}
}

// A frozen container has apps that cannot give a sign of life, and a grace process that cannot see it.
func TestWatchdogThatIsLateItselfWaitsOnceMore(t *testing.T) {
	w := serving(t)
	i := w.m.instances[1]
	w.at = w.at.Add(time.Hour)
	w.expire(i.watchdog.Number)
	if i.Phase != PhaseReady || i.watchdog.Number == 0 || len(w.said(WatchdogLate)) != 1 {
		t.Fatalf("the instance is %s", i.Phase)
	}
	w.at = w.at.Add(w.m.policy.Watchdog)
	w.expire(i.watchdog.Number)
	if i.Phase != PhaseKilling {
		t.Errorf("an app that gives no sign of life then either is %s", i.Phase)
	}
}

func TestExtendOnlyLengthens(t *testing.T) {
	w, candidate := candidateStarted(t)
	before := candidate.deadline
	w.happen(Extended{candidate.ID, time.Second})
	if candidate.deadline != before {
		t.Error("the deadline was brought forward")
	}
	w.happen(Extended{candidate.ID, 2 * time.Minute})
	if !candidate.deadline.After(before) {
		t.Error("the deadline was not moved")
	}
}

func TestMainProcessThatMoved(t *testing.T) {
	w, candidate := candidateStarted(t)
	launcher := w.processes[candidate.PID]
	w.move(candidate.ID)
	w.end(launcher, Exit{})
	w.happen(Emptied{candidate.ID, launcher.pid})
	if candidate.Phase != PhaseStarting {
		t.Fatalf("the launcher's end made the instance %s", candidate.Phase)
	}
	w.readiness(candidate.ID, true)
	if w.m.current.Number != 2 {
		t.Error("the moved instance did not become current")
	}
}

func TestMainProcessThatComesAfterTheEndIsToldToStop(t *testing.T) {
	w := serving(t)
	i := w.m.instances[1]
	w.end(w.processes[i.PID], Exit{Code: 1})
	w.move(1)
	w.end(w.processes[i.PID], Exit{Code: 1})
	told := slices.ContainsFunc(w.seen, func(a Action) bool { return a == Tell{1, syscall.SIGTERM} })
	if !told || len(w.said(InstanceRestarting)) != 1 {
		t.Errorf("told %v, restarted %d times", told, len(w.said(InstanceRestarting)))
	}
}

func TestWhoOnceNotifiedHasToNotifyAgain(t *testing.T) {
	w := serving(t)
	w.happen(Notified{1})
	w.happen(UpgradeRequested{})
	w.answerPrepare(2, true)
	last := w.seen[slices.IndexFunc(w.seen, func(a Action) bool { s, ok := a.(Start); return ok && s.Generation == 2 })]
	if !last.(Start).MustNotify {
		t.Error("the successor may be taken for ready without its word")
	}
}

func TestUpgradeIsRefusedWithTheReason(t *testing.T) {
	p := anyPolicy()
	p.NoUpgrade = Said("no socket is held")
	w := servingWith(t, p)
	w.happen(UpgradeRequested{})
	if r := w.said(UpgradeRefused); len(r) != 1 || r[0].Why != p.NoUpgrade || w.m.candidate != nil {
		t.Errorf("reports %+v", r)
	}
}

func TestSignalsGoToTheGenerationInService(t *testing.T) {
	w, _ := candidateStarted(t)
	w.seen = nil
	w.happen(SignalReceived{Signal: syscall.SIGUSR1})
	if !slices.Equal(w.seen, []Action{Tell{1, syscall.SIGUSR1}}) {
		t.Errorf("actions %v", w.seen)
	}
	request := w.ask()
	w.happen(SignalReceived{Signal: syscall.SIGUSR2, Request: request})
	if r := w.answered(request); r == nil || r.Outcome != OutcomeSignalled || r.Generation != 1 {
		t.Errorf("answer %+v", r)
	}
}

func TestSignalForNobodyIsRefused(t *testing.T) {
	w := newWorld(t, anyPolicy())
	request := w.ask()
	w.happen(SignalReceived{Signal: syscall.SIGUSR2, Request: request})
	if r := w.answered(request); r == nil || r.Outcome != OutcomeRefused || r.Why != NothingRuns {
		t.Errorf("answer %+v", r)
	}
}

func TestDrainTellsHowItGoes(t *testing.T) {
	w, candidate := candidateStarted(t)
	w.readiness(candidate.ID, false)
	old := w.m.find(1)
	w.expire(old.progress.Number)
	w.happen(Counted{Generation: 1, InFlight: 12})
	if r := w.said(DrainProgress); len(r) != 1 || r[0].Connections == nil || *r[0].Connections != 12 || r[0].Requests != nil {
		t.Errorf("reports %+v", r)
	}
	w.expirePhase(1)
	w.endInstance(1, Exit{Signal: syscall.SIGKILL})
	if r := w.said(GenerationKilled); len(r) != 1 || r[0].Why != (KilledInFlight{12}) {
		t.Errorf("reports %+v", r)
	}
}

func TestReplacedListenerGoesToANewGeneration(t *testing.T) {
	w := serving(t)
	w.happen(Revived{Listener: "web", Replaced: true})
	if w.m.candidate == nil || w.m.candidate.Number != 2 {
		t.Errorf("nobody gets the new socket: %v", w)
	}
}

func TestRevivedListenerNamesWhoDidIt(t *testing.T) {
	for why, happens := range map[ShutDownBy]func(w *world){
		{Generation: 1}:              func(*world) {},
		{Generation: 1, Ended: true}: func(w *world) { w.endInstance(1, Exit{}) },
		{}: func(w *world) {
			w.endInstance(1, Exit{})
			w.at = w.at.Add(justEnded)
		},
	} {
		w, candidate := candidateStarted(t)
		w.readiness(candidate.ID, false)
		happens(w)
		w.happen(Revived{Listener: "web"})
		if r := w.said(ListenerRevived); len(r) != 1 || r[0].Listener != "web" || r[0].Why != why {
			t.Errorf("%+v: reports %+v", why, r)
		}
	}
}

func TestDrainTellsWhatTheAppSaysIsInFlight(t *testing.T) {
	p := anyPolicy()
	p.Instances = 2
	w := servingWith(t, p)
	w.happen(Tallied{1, 4})
	w.upgrade(t)
	old := w.m.find(1)
	w.happen(Tallied{2, 3})
	w.happen(Tallied{1, 2})
	w.happen(Counted{Generation: 1, InFlight: 12})
	w.happen(Counted{Generation: 1, Why: "no right"})
	w.end(w.processes[1], Exit{})
	w.happen(Counted{Generation: 1, InFlight: 11})
	told := w.said(DrainProgress)
	if len(told) != 3 {
		t.Fatalf("reports %+v", told)
	}
	for n, want := range []struct {
		connections *int
		requests    int
		why         Reason
	}{{new(12), 5, nil}, {nil, 5, Said("no right")}, {new(11), 3, nil}} {
		r := told[n]
		if !reflect.DeepEqual(r.Connections, want.connections) || *r.Requests != want.requests || r.Why != want.why {
			t.Errorf("report %d: %+v", n, r)
		}
	}
	w.expirePhase(old.instances[1].ID)
	if r := w.said(DrainTimedOut); len(r) != 1 || r[0].Why != (RequestsInFlight{3}) {
		t.Errorf("reports %+v", r)
	}
}

// STOPPING=1 comes from an app that nobody told to stop, and its end decides.
func TestInstanceThatStopsByItself(t *testing.T) {
	for name, test := range map[string]struct {
		policy   Restart
		end      func(w *world)
		restarts bool
		status   int
	}{
		"well":             {RestartOnFailure, func(w *world) { w.endInstance(1, Exit{}) }, false, 0},
		"well, for always": {RestartAlways, func(w *world) { w.endInstance(1, Exit{}) }, true, 0},
		"badly":            {RestartOnFailure, func(w *world) { w.endInstance(1, Exit{Code: 1}) }, true, 0},
		"not in time": {RestartOnFailure, func(w *world) {
			w.expirePhase(1)
			w.endInstance(1, Exit{Signal: syscall.SIGKILL})
		}, true, 0},
		"badly, for never": {RestartNever, func(w *world) { w.endInstance(1, Exit{Code: 3}) }, false, 3},
	} {
		t.Run(name, func(t *testing.T) {
			p := anyPolicy()
			p.Restart = test.policy
			w := servingWith(t, p)
			w.happen(Withdrawn{1})
			w.happen(Withdrawn{1})
			i := w.m.instances[1]
			if i.Phase != PhaseDraining || i.watchdog.Number != 0 || len(w.said(InstanceWithdrawn)) != 1 {
				t.Fatalf("it is %s, watchdog %v, reports %+v", i.Phase, i.watchdog, w.said(InstanceWithdrawn))
			}
			test.end(w)
			if restarts := len(w.said(InstanceRestarting)) > 0; restarts != test.restarts {
				t.Errorf("it restarts: %v", restarts)
			}
			if !test.restarts && (!w.finished || w.status != test.status) {
				t.Errorf("finished %v with %d, want %d", w.finished, w.status, test.status)
			}
		})
	}
}

// A second signal makes a drain an immediate end.
func TestInstanceThatStopsByItselfIsNotToldTo(t *testing.T) {
	for name, replace := range map[string]func(w *world){
		"upgrade": func(w *world) { w.upgrade(t) },
		"stop":    func(w *world) { w.happen(StopRequested{}) },
	} {
		w := serving(t)
		w.happen(Withdrawn{1})
		deadline := w.m.instances[1].deadline
		replace(w)
		if i := w.m.instances[1]; slices.Contains(w.seen, Action(Tell{1, syscall.SIGTERM})) || i.deadline != deadline {
			t.Errorf("%s: it was told, or got more time: %v", name, w.seen)
		}
		w.endInstance(1, Exit{})
		if len(w.said(InstanceRestarting)) > 0 || name == "stop" && !w.finished {
			t.Errorf("%s: %v", name, w)
		}
	}
}

func TestCandidateThatStopsByItselfIsNotPromoted(t *testing.T) {
	w, candidate := candidateStarted(t)
	w.happen(Withdrawn{candidate.ID})
	w.readiness(candidate.ID, true)
	if w.m.current.Number != 1 || w.m.instances[1].Phase != PhaseReady {
		t.Fatalf("generation %d is current", w.m.current.Number)
	}
	w.endInstance(candidate.ID, Exit{})
	if r := w.said(UpgradeFailed); len(r) != 1 || r[0].Serving != 1 {
		t.Errorf("the upgrade has not failed: %v", w)
	}
}

// What grace itself was short of is no crash of the app, and no reason to wait longer each time.
func TestShortageIsTriedAgainSoonAndToldOnce(t *testing.T) {
	short := func(why string) Exit { return Exit{Code: 1, NotRun: why, Shortage: true} }
	w := serving(t)
	w.crash(1)
	crashes, told := w.m.crashes, len(w.said(InstanceRestarting))
	for instance := 2; instance < 12; instance++ {
		w.expire(w.m.instances[instance].timer.Number)
		delete(w.starting, instance)
		w.happen(StartFailed{instance, short("no process is left")})
		next := w.m.instances[instance+1]
		if next == nil || next.Phase != PhaseBackoff || next.Failures != 1 {
			t.Fatalf("after %d: %+v", instance, next)
		}
		if a := w.seen[slices.IndexFunc(w.seen, func(a Action) bool { a2, ok := a.(Arm); return ok && a2.Timer == next.timer })].(Arm); a.After != shortageRetry {
			t.Errorf("tried again after %s", a.After)
		}
	}
	w.expire(w.m.instances[12].timer.Number)
	delete(w.starting, 12)
	w.happen(StartFailed{12, short("no room is left")})
	if got := len(w.said(InstanceRestarting)) - told; got != 2 || w.m.crashes != crashes {
		t.Errorf("told %d times of two shortages, %d crashes", got, w.m.crashes-crashes)
	}
}

// Failures are forgotten after a minute, and where there were none nothing wakes grace up then.
func TestFailuresAreForgotten(t *testing.T) {
	w := serving(t)
	if n := w.m.instances[1].timer.Number; n != 0 {
		t.Errorf("timer %d waits for nothing", n)
	}
	w.crash(1)
	w.expire(w.m.instances[2].timer.Number)
	w.answerStart(2, true)
	w.happen(Readied{Instance: 2})
	if f := w.m.instances[2].Failures; f != 1 {
		t.Errorf("%d failures at first", f)
	}
	w.expire(w.m.instances[2].timer.Number)
	if f := w.m.instances[2].Failures; f != 0 {
		t.Errorf("%d failures after a minute", f)
	}
}

// The shim fails in a process of its own.
func TestShortageInTheShimIsNoCrash(t *testing.T) {
	w := serving(t)
	w.crash(1)
	w.expire(w.m.instances[2].timer.Number)
	w.answerStart(2, true)
	crashes := w.m.crashes
	w.endInstance(2, Exit{Code: 126, NotRun: "no process is left", Shortage: true})
	if next := w.m.instances[3]; next == nil || next.Failures != 1 || w.m.crashes != crashes {
		t.Errorf("%+v, %d crashes", next, w.m.crashes-crashes)
	}
}

// A grace process that was held up itself has not seen what has become of those it killed.
func TestLateTimerOfAKillIsNoSurvivor(t *testing.T) {
	w := serving(t)
	w.happen(KillRequested{})
	w.at = w.at.Add(killPatience + 5*time.Second)
	w.expirePhase(1)
	if len(w.said(KillTimedOut)) > 0 {
		t.Error("it is said to have survived KILL")
	}
	w.at = w.at.Add(killPatience)
	w.expirePhase(1)
	if len(w.said(KillTimedOut)) != 1 {
		t.Error("nobody says that it is there still")
	}
}
