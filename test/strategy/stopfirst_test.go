package strategy

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

const (
	paused  = "no instance serves: clients wait for the next one"
	resumed = "instances serve again"
)

var stopFirst = control.Request{Do: control.Upgrade, MaxSurge: "0"}

// An app that locks a file cannot run twice: each upgrade would fail if the new instance started before the old one had ended.
func TestOldInstanceEndsBeforeTheNewOneStarts(t *testing.T) {
	for _, kind := range allKinds() {
		for name, upgrade := range map[string]func(a *app){
			"restart": func(a *app) { a.Command("restart") },
			"request": func(a *app) { next := a.status().Current + 1; a.want(a.ask(stopFirst), control.Upgraded, next) },
			"HUP":     func(a *app) { a.Signal(syscall.SIGHUP) },
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				var flags []string
				if name == "HUP" {
					flags = []string{"--max-surge", "0"}
				}
				a := start(t, kind, flags, "-lock", filepath.Join(t.TempDir(), "lock"))
				a.underLoad(func() {
					for generation := 2; generation <= 3; generation++ {
						upgrade(a)
						a.AwaitGeneration("upgraded", generation)
						a.settled(generation, 1)
						a.AwaitGeneration(paused, generation-1)
						if e := a.AwaitGeneration(resumed, generation); e.Took <= 0 {
							t.Errorf("the log does not say how long nothing served: %s", e.Text)
						}
					}
				})
				a.End()
			})
		}
	}
}

// What an app that locks a file makes of an upgrade that starts the new instance first.
func TestLockedFileFailsAnUpgrade(t *testing.T) {
	t.Parallel()
	a := start(t, "captured", nil, "-lock", filepath.Join(t.TempDir(), "lock"))
	a.underLoad(func() { a.want(a.ask(control.Request{Do: control.Upgrade}), control.Failed, 1) })
	a.settled(1, 1)
	a.End()
}

// When the new version fails, the old one is started again; clients wait until that serves.
func TestOldVersionComesBackWhenTheNewOneFails(t *testing.T) {
	for _, kind := range allKinds() {
		for _, instances := range []int{1, 4} {
			if instances > 1 && kind == "steered" {
				continue // as captured
			}
			t.Run(fmt.Sprintf("%s, %d", kind, instances), func(t *testing.T) {
				t.Parallel()
				a := start(t, kind, []string{"--max-surge", "0", "--ready-timeout", "5s", "--instances", fmt.Sprint(instances)})
				broken := harness.Write(t, t.TempDir(), "broken", "", 0o600)
				a.underLoad(func() {
					stop := a.keeps(instances-1, instances)
					generation := 2
					for command, why := range map[string]string{
						"-fail " + broken: "exit status 3",
						"-delay 1h":       "not ready within 5s",
					} {
						r := a.ask(control.Request{Do: control.Upgrade, Command: a.command(strings.Fields(command)...)})
						if a.want(r, control.Failed, 1); !strings.Contains(r.Why, why) || r.Generation != generation {
							t.Errorf("the answer is %+v, and does not say %q", r, why)
						}
						a.settled(1, instances)
						generation++
					}
					stop()
				})
				if instances == 1 {
					a.AwaitTimes(resumed, 2, func(e harness.Entry) bool { return e.Message == resumed && e.Generation == 1 })
				} else if a.Said(paused) {
					t.Error("no instance served")
				}
				a.underLoad(func() { a.want(a.ask(control.Request{Do: control.Upgrade, Command: a.command()}), control.Upgraded, 4) })
				a.End()
			})
		}
	}
}

// A command that does not exist is found out before the old instance is told to stop.
func TestMissingCommandCostsNothing(t *testing.T) {
	t.Parallel()
	a := start(t, "captured", nil)
	pid := a.generation(1).Instances[0].PID
	a.underLoad(func() {
		a.want(a.ask(control.Request{Do: control.Upgrade, MaxSurge: "0", Command: []string{"/none"}}), control.Failed, 1)
	})
	if now := a.generation(1).Instances; len(now) != 1 || now[0].PID != pid || a.Said(paused) {
		t.Errorf("the instances are %+v, not process %d", now, pid)
	}
	a.End()
}
