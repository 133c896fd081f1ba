package strategy

import (
	"testing"

	"github.com/gracerun/grace/supervisor/control"
)

func (a *app) awaitPhase(generation int, phase string) {
	a.T.Helper()
	a.await("the generation is "+phase, func(s control.Status) bool { return find(s, generation).Phase == phase })
}

// The processes that served before serve again: nothing is started.
func TestRollbackToAWarmGeneration(t *testing.T) {
	for _, kind := range steeredKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--keep-warm", "1h", "--instances", "2"})
			before := a.generation(1).Instances
			a.underLoad(func() {
				a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 2)
				a.awaitPhase(1, "warm")
				a.checkShare(2, 1)
				a.want(a.ask(control.Request{Do: control.Rollback}), control.Upgraded, 1)
				a.checkShare(1, 1)
				a.settled(1, 2)
			})
			for i, now := range a.generation(1).Instances {
				if now.PID != before[i].PID {
					t.Errorf("instance %d was process %d, and is %d", now.ID, before[i].PID, now.PID)
				}
			}
			a.End()
		})
	}
}

// There is one way back: the next upgrade ends the one before. It is there for the next grace process too.
func TestWarmGenerationEndsWithTheNextUpgrade(t *testing.T) {
	for _, kind := range steeredKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--keep-warm", "1h"})
			a.underLoad(func() {
				a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 2)
				a.awaitPhase(1, "warm")
				a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 3)
				a.awaitPhase(2, "warm")
				a.awaitPhase(1, "")
				a.Command("reexec")
				a.awaitPhase(2, "warm")
				a.Kill()
				a.Again()
				a.awaitPhase(2, "warm")
				a.want(a.ask(control.Request{Do: control.Rollback}), control.Upgraded, 2)
				a.settled(2, 1)
			})
			a.End()
		})
	}
}

func TestWarmGenerationEndsInTime(t *testing.T) {
	t.Parallel()
	a := start(t, "captured", []string{"--keep-warm", "300ms"})
	a.underLoad(func() {
		a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 2)
		a.AwaitGeneration("generation kept warm", 1)
		a.settled(2, 1)
	})
	a.End()
}
