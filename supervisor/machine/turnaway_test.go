package machine

import (
	"testing"
	"time"
)

// turningAway has generation 1 accept what waits in its queue when grace stops.
func turningAway(t *testing.T) *world {
	w := serving(t)
	w.slow = true
	w.happen(StopRequested{})
	return w
}

func TestStopWaitsForTheQueueThatGenerationsShare(t *testing.T) {
	w := turningAway(t)
	if w.toldToStop(1) || !w.turning[1] {
		t.Fatal("it was told before its queue was empty")
	}
	w.turnedAway(1)
	if !w.toldToStop(1) {
		t.Error("it was not told to stop")
	}
}

func TestQueueIsNotWaitedForLong(t *testing.T) {
	w := turningAway(t)
	if within := w.after(t, Timer{leaving: 1}); within != w.m.policy.DrainTimeout/8 {
		t.Errorf("its time is %v", within)
	}
	w.expireRelief(1)
	if !w.toldToStop(1) {
		t.Fatal("it was not told to stop")
	}
	w.turnedAway(1)
	w.endInstance(1, Exit{})
	if !w.finished {
		t.Error("grace does not end")
	}
}

// Clients have their time to leave first: who connects meanwhile is served.
func TestClientsLeaveBeforeNewOnesAreTurnedAway(t *testing.T) {
	p := anyPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.slow = true
	w.happen(StopRequested{})
	if w.turning[1] {
		t.Fatal("new clients are turned away while others have time to leave")
	}
	w.happen(Announced{Generation: 1})
	w.depart(1)
	if !w.turning[1] || w.toldToStop(1) {
		t.Fatalf("turned away %t, told %t", w.turning[1], w.toldToStop(1))
	}
	w.turnedAway(1)
	if !w.toldToStop(1) {
		t.Error("it was not told to stop")
	}
}

// What comes late from the farewell changes nothing: the clients had their time.
func TestAnnouncementThatIsLateDelaysNoStop(t *testing.T) {
	p := anyPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.slow = true
	w.happen(StopRequested{})
	w.expireRelief(1)
	until := w.m.find(1).leaveBy
	w.happen(Announced{Generation: 1})
	if now := w.m.find(1).leaveBy; now != until || !w.turning[1] {
		t.Errorf("timer %v in place of %v, turned away %t", now, until, w.turning[1])
	}
	w.turnedAway(1)
	if !w.toldToStop(1) {
		t.Error("it was not told to stop")
	}
}

// As long as another one accepts, nothing is lost.
func TestOnlyTheLastGenerationTurnsAway(t *testing.T) {
	p := anyPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.upgrade(t)
	w.slow = true
	w.happen(Announced{Generation: 1})
	w.happen(StopRequested{})
	w.depart(1)
	if w.turning[1] || !w.toldToStop(1) {
		t.Fatalf("the old one turns away %t, was told to stop %t", w.turning[1], w.toldToStop(1))
	}
	w.happen(Announced{Generation: 2})
	w.depart(2)
	if !w.turning[2] || w.toldToStop(2) {
		t.Errorf("the last one turns away %t, was told to stop %t", w.turning[2], w.toldToStop(2))
	}
}

func TestUpgradeTurnsNobodyAway(t *testing.T) {
	w := serving(t)
	w.slow = true
	w.upgrade(t)
	if w.turning[1] || !w.toldToStop(1) {
		t.Errorf("turned away %t, told to stop %t", w.turning[1], w.toldToStop(1))
	}
}
