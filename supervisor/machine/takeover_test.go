package machine

import (
	"syscall"
	"testing"
)

// takingOver has generation 1 starting, and a server of one process that it is to replace.
func takingOver(t *testing.T, p Policy) *world {
	w := newWorld(t, p)
	w.answerPrepare(1, true)
	w.answerStart(1, true)
	w.find()
	if w.m.current == nil || !w.m.current.foreign() || len(w.m.instances) != 2 {
		t.Fatalf("the machine has not taken it up: %s", w)
	}
	return w
}

func TestServersAreReplacedLikeGenerations(t *testing.T) {
	w := takingOver(t, steeredPolicy())
	server := w.m.current
	w.readiness(1, false)
	if w.m.current.Number != 1 || server.Stage != StageSettling || w.steered.Generation != 1 {
		t.Fatalf("generation %d is current, the server %s", w.m.current.Number, server.Stage)
	}
	if w.m.current.Before != nil {
		t.Error("one can roll back to what grace has not started")
	}
	w.expireRelief(Foreign)
	w.quiet(Foreign)
	w.happenedLast(t, Tell{Instance: 2, Signal: syscall.SIGQUIT})
	if history := w.m.history; len(history) != 1 || history[0].From != Foreign || history[0].Outcome != OutcomeUpgraded {
		t.Errorf("the history is %v", history)
	}
}

func (w *world) happenedLast(t *testing.T, want Action) {
	t.Helper()
	for _, a := range w.seen {
		if a == want {
			return
		}
	}
	t.Errorf("it has not happened: %T%+v", want, want)
}

// What grace has not started it leaves alone, and ends, where the app does not serve.
func TestServersAreLeftAlone(t *testing.T) {
	for name, test := range map[string]struct {
		happen func(w *world)
		status int
	}{
		"the app ends":           {func(w *world) { w.crash(1) }, 1},
		"it is not ready":        {func(w *world) { w.expirePhase(1); w.crash(1) }, statusNotReady},
		"grace is told to stop":  {func(w *world) { w.happen(StopRequested{}); w.crash(1) }, 0},
		"grace is told to end":   {func(w *world) { w.happen(KillRequested{}); w.crash(1) }, 0},
		"the app ends too early": {func(w *world) { w.readiness(1, false); w.crash(1) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := takingOver(t, steeredPolicy())
			test.happen(w)
			w.happenedLast(t, Leave{})
			for _, a := range w.seen {
				if tell, ok := a.(Tell); ok && tell.Instance == 2 {
					t.Errorf("the server is told %v", tell.Signal)
				}
			}
			if !w.finished || test.status != 0 && w.status != test.status {
				t.Errorf("grace has not ended, or with %d: %s", w.status, w)
			}
		})
	}
}

// A server that ends by itself is not started again, and has its successor in the app.
func TestServersAreNotStartedAgain(t *testing.T) {
	w := takingOver(t, steeredPolicy())
	w.crash(2)
	w.readiness(1, false)
	if w.m.current.Number != 1 || len(w.m.generations) != 1 || len(w.starting) > 0 {
		t.Errorf("%s", w)
	}
}

// Who comes when the app serves already is none that it is to replace.
func TestLateServersAreLeft(t *testing.T) {
	w := servingWith(t, steeredPolicy())
	w.find()
	w.happenedLast(t, Leave{})
	if len(w.m.instances) != 1 {
		t.Errorf("%s", w)
	}
}

func TestReleases(t *testing.T) {
	w := serving(t)
	w.happen(UpgradeRequested{})
	w.happen(ReleaseRequested{w.ask()})
	if w.finished || len(w.asked) > 0 {
		t.Fatal("the app was released during an upgrade, or nobody was told that it was not")
	}
	w = serving(t)
	w.happen(ReleaseRequested{w.ask()})
	w.happenedLast(t, Detach{})
	if !w.finished || w.status != 0 {
		t.Error("grace has not ended")
	}
}
