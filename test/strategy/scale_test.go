package strategy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

func (a *app) scale(instances int) control.Result {
	a.T.Helper()
	return a.ask(control.Request{Do: control.Scale, Instances: instances})
}

func (a *app) wantScaled(instances int) {
	a.T.Helper()
	if r := a.scale(instances); r.Outcome != control.Scaled || r.Instances != instances {
		a.T.Errorf("the answer is %+v, not that there are %d instances", r, instances)
	}
}

func TestScale(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, nil)
			a.underLoad(func() {
				stop := a.keeps(1, 6)
				for _, instances := range []int{4, 2, 3} {
					a.wantScaled(instances)
					a.settled(1, instances)
				}
				a.Signal(syscall.SIGTTIN)
				a.settled(1, 4)
				a.Signal(syscall.SIGTTOU)
				a.settled(1, 3)
				stop()
				// The number stays.
				a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 2)
				a.settled(2, 3)
				a.Command("reexec")
				a.settled(2, 3)
				a.Kill()
				a.Again()
				a.settled(2, 3)
				a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 3)
				a.settled(3, 3)
				a.wantScaled(1)
				a.settled(3, 1)
			})
			if s := a.status(); s.Instances != 1 || s.Restarts+s.Crashes > 0 {
				t.Errorf("the status says %+v", s)
			}
			a.End()
		})
	}
}

// If one of the new instances fails there are as many as before.
func TestScalingFails(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			broken := filepath.Join(t.TempDir(), "broken")
			a := start(t, kind, nil, "-fail", broken+"{instance}")
			before := a.generation(1).Instances[0].PID
			a.underLoad(func() {
				harness.Touch(t, broken+"2")
				if r := a.scale(4); r.Outcome != control.Failed || r.Instances != 1 || !strings.Contains(r.Why, "exit status 3") {
					t.Errorf("the answer is %+v", r)
				}
				a.settled(1, 1)
				a.wantScaled(2)
				a.settled(1, 2)
			})
			if now := a.generation(1).Instances; !slices.ContainsFunc(now, func(i control.Instance) bool { return i.PID == before }) {
				t.Errorf("the instances are %+v, without process %d", now, before)
			}
			a.End()
		})
	}
}

// Each instance is replaced by a fresh one of the same generation, which serves first.
func TestOldAgeIsReplaced(t *testing.T) {
	for _, kind := range allKinds() {
		for _, instances := range []int{1, 3} {
			if instances > 1 && kind == "steered" {
				continue // as captured
			}
			t.Run(fmt.Sprintf("%s, %d", kind, instances), func(t *testing.T) {
				t.Parallel()
				a := start(t, kind, []string{"--max-age", "2s", "--instances", fmt.Sprint(instances)})
				var before []int
				for _, i := range a.generation(1).Instances {
					before = append(before, i.PID)
				}
				a.underLoad(func() {
					stop := a.keeps(instances, 2*instances+1)
					a.await("no instance is one of the first", func(s control.Status) bool {
						now := find(s, 1).Instances
						return !slices.ContainsFunc(now, func(i control.Instance) bool { return slices.Contains(before, i.PID) })
					})
					stop()
				})
				if s := a.status(); s.Current != 1 || s.Restarts+s.Crashes > 0 {
					t.Errorf("the status says %+v", s)
				}
				a.End()
			})
		}
	}
}

// An instance that cannot be replaced serves on.
func TestFreshInstanceFails(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			broken := filepath.Join(t.TempDir(), "broken")
			a := start(t, kind, []string{"--max-age", "1s"}, "-fail", broken)
			harness.Touch(t, broken)
			before := a.generation(1).Instances[0].PID
			a.underLoad(func() {
				a.AwaitMessage("cannot replace the instance, it still serves")
				a.settled(1, 1)
			})
			if now := a.generation(1).Instances[0].PID; now != before {
				t.Errorf("process %d serves, and not %d", now, before)
			}
			a.End()
		})
	}
}

// An app that cannot run twice is replaced as it is upgraded.
func TestOldAgeOfAnAppThatLocksAFile(t *testing.T) {
	t.Parallel()
	a := start(t, "captured", []string{"--max-age", "1s", "--max-surge", "0"}, "-lock", filepath.Join(t.TempDir(), "lock"))
	a.underLoad(func() { a.AwaitMessage(resumed) })
	a.End()
}
