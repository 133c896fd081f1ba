package strategy

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// Never do fewer instances serve than before, and never do more run than may.
func TestInstancesAreReplacedOneByOne(t *testing.T) {
	for _, kind := range allKinds() {
		for surge, most := range map[string]int{"25%": 5, "3": 7} {
			t.Run(kind+", "+surge, func(t *testing.T) {
				t.Parallel()
				a := start(t, kind, []string{"--instances", "4", "--max-surge", surge})
				a.underLoad(func() {
					stop := a.keeps(4, most)
					a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, 2)
					a.settled(2, 4)
					a.Signal(syscall.SIGHUP)
					a.settled(3, 4)
					stop()
				})
				a.End()
			})
		}
	}
}

func TestEightInstances(t *testing.T) {
	t.Parallel()
	a := start(t, "captured", []string{"--instances", "8"})
	a.underLoad(func() {
		stop := a.keeps(8, 10)
		a.want(a.ask(control.Request{Do: control.Upgrade, MaxSurge: "25%"}), control.Upgraded, 2)
		a.settled(2, 8)
		stop()
	})
	a.End()
}

// rolling is an upgrade of four instances, one by one, that has come half way: two new instances serve beside two old ones, and a
// third one starts.
type rolling struct {
	*app
	finish func()                // lets the other instances start
	answer func() control.Result // of the upgrade
}

func rollHalfWay(t *testing.T, kind string) rolling {
	t.Helper()
	a := start(t, kind, []string{"--instances", "4", "--max-surge", "1"})
	dir := t.TempDir()
	script := harness.Write(t, dir, "later", `#!/bin/sh
[ "$1" -lt 2 ] || while [ ! -e `+dir+`/go ]; do sleep 0.05; done
shift
exec "$@"
`, 0o755)
	r := rolling{app: a, finish: func() { harness.Write(t, dir, "go", "", 0o600) }}
	r.answer = a.begin(control.Request{Do: control.Upgrade, Command: slices.Concat([]string{script, "{instance}"}, a.command())})
	r.await("two new instances serve, two old ones do, and one starts", func(s control.Status) bool {
		return len(inPhase(s, 2, "ready")) == 2 && len(inPhase(s, 1, "ready")) == 2 && len(inPhase(s, 2, "starting")) == 1 && len(s.Generations) == 2
	})
	return r
}

// phase gives the pids of a generation's instances in a phase.
func (r rolling) phase(generation int, phase string) (pids []int) {
	r.T.Helper()
	return inPhase(r.status(), generation, phase)
}

func inPhase(s control.Status, generation int, phase string) (pids []int) {
	for _, i := range find(s, generation).Instances {
		if i.Phase == phase && i.PID != 0 {
			pids = append(pids, i.PID)
		}
	}
	return pids
}

// undone wants all four old instances to be back.
func (r rolling) undone(why string) {
	r.T.Helper()
	if got := r.answer(); got.Outcome != control.Undone || got.Serving != 1 || !strings.Contains(got.Why, why) {
		r.T.Errorf("the answer is %+v, and does not say that the upgrade was undone: %s", got, why)
	}
	r.settled(1, 4)
}

func TestUpgradeIsUndoneHalfWay(t *testing.T) {
	for _, kind := range allKinds() {
		for name, spoil := range map[string]func(r rolling){
			"an instance fails to start": func(r rolling) {
				r.underLoad(func() {
					stop := r.keeps(4, 5)
					r.kill(r.phase(2, "starting")[0])
					r.undone("signal: killed")
					stop()
				})
			},
			"a new instance is killed": func(r rolling) { // without clients, whose requests would be lost
				r.kill(r.phase(2, "ready")[0])
				r.undone("signal: killed")
			},
			"a rollback": func(r rolling) {
				r.underLoad(func() {
					stop := r.keeps(4, 5)
					r.want(r.ask(control.Request{Do: control.Rollback}), control.Upgraded, 1)
					r.undone("a rollback was requested")
					stop()
				})
			},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				r := rollHalfWay(t, kind)
				spoil(r)
				r.underLoad(func() { r.want(r.ask(control.Request{Do: control.Upgrade, Command: r.command()}), control.Upgraded, 3) })
				r.End()
			})
		}
	}
}

// An instance whose program fails by itself, after others of its generation have come to serve.
func TestInstanceThatFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	a := start(t, "captured", []string{"--instances", "4", "--max-surge", "1"})
	broken := filepath.Join(t.TempDir(), "broken")
	harness.Touch(t, broken+"2")
	a.underLoad(func() {
		stop := a.keeps(4, 5)
		r := a.ask(control.Request{Do: control.Upgrade, Command: a.command("-fail", broken+"{instance}")})
		if a.want(r, control.Undone, 1); !strings.Contains(r.Why, "exit status 3") {
			t.Errorf("the answer is %+v", r)
		}
		a.settled(1, 4)
		stop()
	})
	a.End()
}

// An old instance that ends by itself gives its place to a new one.
func TestOldInstanceIsKilledHalfWay(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := rollHalfWay(t, kind)
			r.kill(r.phase(1, "ready")[0])
			r.AwaitTimes("the end of an old instance", 3, func(e harness.Entry) bool { return e.Message == "instance ended" && e.Generation == 1 })
			r.underLoad(func() {
				r.finish()
				r.want(r.answer(), control.Upgraded, 2)
				r.settled(2, 4)
			})
			r.End()
		})
	}
}

// At a stop both versions finish what they have.
func TestStopHalfWay(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := rollHalfWay(t, kind)
			var requests []harness.Request
			for range 20 { // none of them may come to the instance that starts
				requests = append(requests, harness.BeginRequest(t, r.addr))
			}
			r.Signal(syscall.SIGTERM)
			r.AwaitMessage("stopping")
			for _, request := range requests {
				request.Finish()
			}
			r.Ends(0)
			if got := r.answer(); got.Outcome != control.Failed {
				t.Errorf("the answer is %+v", got)
			}
		})
	}
}

// The next grace process goes on where one that was killed has stopped.
func TestGraceIsKilledHalfWay(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := rollHalfWay(t, kind)
			r.underLoad(func() {
				r.Kill()
				r.Again()
				r.finish()
				serves := r.AwaitOneGeneration()
				r.settled(serves, 4)
				r.want(r.ask(control.Request{Do: control.Upgrade, Command: r.command()}), control.Upgraded, 3)
				r.settled(3, 4)
				t.Logf("after the kill generation %d served", serves)
			})
			r.End()
		})
	}
}

// Wherever in the upgrade grace is killed, it ends whole, in one of the versions.
func TestGraceIsKilledAtAnyPoint(t *testing.T) {
	for _, kind := range allKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--instances", "4", "--max-surge", "1"})
			a.underLoad(func() {
				serves := 1
				for n := range 2 {
					a.Signal(syscall.SIGHUP)
					a.AwaitTimes("instances of the next generation are ready", n+1, func(e harness.Entry) bool {
						return e.Message == "instance ready" && e.Generation == serves+1
					})
					a.Kill()
					a.Again()
					serves = a.AwaitOneGeneration()
					a.settled(serves, 4)
				}
			})
			a.End()
		})
	}
}

func TestUpgradeOfOneInstanceWithASurgeOfOne(t *testing.T) {
	t.Parallel()
	a := start(t, "held", []string{"--max-surge", "1"})
	a.underLoad(func() {
		stop := a.keeps(1, 2)
		for generation := 2; generation <= 3; generation++ {
			a.want(a.ask(control.Request{Do: control.Upgrade}), control.Upgraded, generation)
			a.settled(generation, 1)
		}
		stop()
	})
	if a.Said(paused) {
		t.Error("no instance served")
	}
	a.End()
}
