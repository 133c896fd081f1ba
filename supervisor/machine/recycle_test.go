package machine

import (
	"testing"
	"time"
)

// An app that is unfit again at once is not started all the time.
func TestFreshInstanceThatIsUnfitServesForAWhile(t *testing.T) {
	w := serving(t)
	w.happen(Unfit{Instance: 1, Why: "too large"})
	w.happen(Unfit{Instance: 1, Why: "too large"})
	w.bring(t)
	if n := len(w.said(InstanceUnfit)); n != 1 || len(w.said(InstanceReplaced)) != 1 {
		t.Fatalf("said %d times that instance 1 is unfit: %s", n, w)
	}
	w.endInstance(1, Exit{})
	w.happen(Unfit{Instance: 2, Why: "too large"})
	if w.m.candidate != nil {
		t.Fatal("a fresh instance is replaced at once")
	}
	w.at = w.at.Add(time.Minute)
	w.happen(Unfit{Instance: 2, Why: "too large"})
	if w.m.candidate == nil || w.m.candidate.Replaces != 2 {
		t.Fatalf("it is not replaced after a minute: %s", w)
	}
}

// A generation that shares and is unfit gives the clients back, and is not mended.
func TestUnfitCanaryGivesAllClientsBack(t *testing.T) {
	p := steeredPolicy()
	p.Canary = []CanaryStep{{500, time.Minute}}
	w := servingWith(t, p)
	w.happen(UpgradeRequested{})
	g := w.bring(t)
	if g.Stage != StageSharing {
		t.Fatalf("generation 2 is %s", g.Stage)
	}
	w.happen(Unfit{Instance: 2, Why: "too large"})
	if undone := w.said(UpgradeUndone); len(undone) != 1 || undone[0].Why != Said("too large") || w.steered.Beside != 0 {
		t.Fatalf("said %v, and steered to %+v", undone, w.steered)
	}
}

// Who waits at the socket of an instance that hangs, and is replaced, is answered by one that takes its place.
func TestInstanceThatHangsIsKilledForItsQueue(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.happen(Unfit{Instance: 1, Why: "no answer", Hangs: true})
	w.bring(t)
	batch := w.m.instances[1].generation.Number
	w.expireRelief(batch)
	w.happenedLast(t, Kill{1})
	w.crash(1)
	if stageOf(w, batch) != StageEmptying {
		t.Fatalf("the batch is %s", stageOf(w, batch))
	}
	w.expirePhase(3) // its backoff
	w.happen(Awaited{batch})
	w.answerStart(3, true)
	w.readiness(3, false)
	w.quiet(batch) // of the one that was killed
	w.quiet(batch)
	w.happenedLast(t, Tell{3, w.m.policy.StopSignal})
}

// An instance that has crashed while a fresh one started in its place, and is being started again, leaves when it has been started.
func TestFreshInstanceWaitsForTheStartOfWhatItReplaces(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.happen(Unfit{Instance: 1, Why: "too large"})
	w.crash(1)
	w.expirePhase(3) // its backoff
	w.answerStart(2, true)
	w.readiness(2, false)
	if len(w.said(InstanceReplaced)) != 0 {
		t.Fatalf("an instance without a process was moved: %s", w)
	}
	w.answerStart(3, true)
	if len(w.said(InstanceReplaced)) != 1 || w.m.instances[3].generation == w.m.current || w.m.instances[2].generation != w.m.current {
		t.Fatalf("instance 2 does not serve in the place of 3: %s", w)
	}
}
