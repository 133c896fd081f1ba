package machine

import (
	"syscall"
	"testing"
	"time"
)

func (w *world) toldToStop(instance int) bool {
	for _, a := range w.seen {
		if a == (Tell{instance, syscall.SIGTERM}) {
			return true
		}
	}
	return false
}

func TestGenerationIsToldToStopWhenItsClientsHaveLeft(t *testing.T) {
	w := closing(t)
	w.happen(Announced{Generation: 1})
	if w.toldToStop(1) || stageOf(w, 1) != StageClosing {
		t.Fatalf("generation 1 is %s", stageOf(w, 1))
	}
	w.depart(1)
	if w.toldToStop(1) || !w.holding[1] {
		t.Fatal("it was told before what silent clients send is held back")
	}
	w.held(1)
	if !w.toldToStop(1) || !w.keeping[1] || stageOf(w, 1) != StageDraining {
		t.Errorf("generation 1 is %s", stageOf(w, 1))
	}
	w.crash(1)
	w.kept(1)
	if ends := w.said(KeptConnectionsEnded); len(ends) != 1 || ends[0].Generation != 1 {
		t.Errorf("%+v", ends)
	}
}

// Clients that never pause, or that are not told for whatever reason, do not keep it.
func TestClientsHaveATimeToLeave(t *testing.T) {
	w := closing(t)
	w.happen(Announced{Generation: 1})
	w.expireRelief(1)
	if !w.holding[1] {
		t.Fatal("nothing is held back when the time is over")
	}
	w.expireRelief(1)
	if !w.toldToStop(1) {
		t.Error("it waits for an answer that does not come")
	}
	w = closing(t)
	w.expireRelief(1)
	if w.holding[1] || !w.toldToStop(1) {
		t.Error("it waits for clients to be told")
	}
}

// Whoever stops all waits less long for clients to be told than an upgrade may.
func TestStopIsNotLateForClientsThatAreNotTold(t *testing.T) {
	p := anyPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.happen(StopRequested{})
	if now := w.m.find(1).leaveBy; w.due[now.Number].Sub(w.at) != p.holdTime() {
		t.Errorf("its time ends in %s", w.due[now.Number].Sub(w.at))
	}
}

// It waits for the last requests of its clients, which must reach it.
func TestNothingIsHeldBackFromAnAppThatSendsItsClientsAway(t *testing.T) {
	for name, p := range map[string]Policy{"shared": anyPolicy(), "steered": steeredPolicy()} {
		p.Farewell = time.Second
		w := servingWith(t, p)
		w.happen(Exempted{1})
		w.upgrade(t)
		for w.m.find(1).Stage < StageDraining {
			w.expireRelief(1)
		}
		if w.holding[1] || !w.toldToStop(1) || w.announced[1] != p.Steered {
			t.Errorf("%s: held back %t, told %t, announced %t", name, w.holding[1], w.toldToStop(1), w.announced[1])
		}
	}
}

// The time begins when the clients are told.
func TestTimeToLeaveBeginsWithTheAnnouncement(t *testing.T) {
	w := closing(t)
	first := w.m.find(1).leaveBy
	w.happen(Announced{Generation: 1})
	if now := w.m.find(1).leaveBy; now == first || w.due[now.Number].Sub(w.at) != time.Second {
		t.Errorf("its time ends in %s", w.due[now.Number].Sub(w.at))
	}
}

func TestLogSaysHowManyClientsWereAsked(t *testing.T) {
	w := closing(t)
	w.happen(Announced{Generation: 1, Clients: 12})
	if asked := w.said(ClientsAsked); len(asked) != 1 || *asked[0].Connections != 12 || asked[0].Within != time.Second {
		t.Errorf("%+v", asked)
	}
	w = closing(t)
	w.happen(Announced{Generation: 1})
	if asked := w.said(ClientsAsked); len(asked) != 0 {
		t.Errorf("there was nobody to ask: %+v", asked)
	}
}

// A second is too short for a word about it.
func TestLongWaitForClientsIsLogged(t *testing.T) {
	w := closing(t)
	w.happen(Announced{Generation: 1})
	if g := w.m.find(1); g.progress != (Timer{}) {
		t.Error("connections are counted within a second")
	}
	w = closing(t)
	w.m.policy.Farewell = time.Minute
	w.happen(Announced{Generation: 1})
	w.expire(w.m.find(1).progress.Number)
	w.happen(Counted{Generation: 1, InFlight: 7})
	if told := w.said(DrainProgress); len(told) != 1 || *told[0].Connections != 7 {
		t.Errorf("%+v", told)
	}
	w.depart(1)
	w.held(1)
	if g := w.m.find(1); w.due[g.progress.Number].Sub(w.at) != firstProgress {
		t.Error("the drain does not begin with a count of its own")
	}
}

func TestClientsOfAGenerationThatServesAgainStay(t *testing.T) {
	p := steeredPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.upgrade(t)
	if !w.announced[1] {
		t.Fatal("the clients of the replaced generation are not told")
	}
	w.endInstance(2, Exit{Code: 3})
	if w.announced[1] || w.m.current.Number != 1 {
		t.Errorf("generation %d is current", w.m.current.Number)
	}
}

// There is nobody else to answer what is held.
func TestStopHoldsNothing(t *testing.T) {
	p := anyPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.happen(StopRequested{})
	if w.toldToStop(1) || !w.announced[1] {
		t.Fatal("it was told before its clients")
	}
	w.happen(Announced{Generation: 1})
	w.depart(1)
	if w.holding[1] || !w.toldToStop(1) {
		t.Error("something is held back")
	}
	w.crash(1)
	if w.finished {
		t.Fatal("grace ends before the connections have")
	}
	w.kept(1)
	if !w.finished {
		t.Error("grace does not end")
	}
}

func TestQuitWaitsForNobody(t *testing.T) {
	w := closing(t)
	w.happen(Announced{Generation: 1})
	w.depart(1)
	w.held(1)
	w.happen(KillRequested{})
	for _, instance := range []int{1, 2} {
		w.crash(instance)
	}
	if !w.finished {
		t.Error("grace waits for kept connections")
	}
}

// What is kept cannot travel, and is waited for no longer than needed.
func TestReexecHastensFarewells(t *testing.T) {
	w := closing(t)
	w.happen(Announced{Generation: 1})
	w.depart(1)
	w.held(1)
	w.happen(ReexecRequested{w.ask()})
	if w.leaving || !w.hastened() {
		t.Fatal("grace is replaced while it keeps connections, or waits as long as they do")
	}
	w.crash(1)
	w.kept(1)
	if !w.leaving {
		t.Error("the reexec waits for nothing")
	}
}

func (w *world) hastened() bool {
	for _, a := range w.seen {
		if a == (Hasten{}) {
			return true
		}
	}
	return false
}
