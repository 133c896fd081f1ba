package chaos

import (
	"math/rand/v2"
	"slices"

	"github.com/gracerun/grace/supervisor/control"
)

// strategies are the faults that come in other ways to upgrade.
func strategies() []fault {
	return []fault{
		{"rolling upgrade", 3, rollingUpgrade, nil},
		{"crash in a rolling upgrade", 2, crashingRoll, nil},
		{"kill in a rolling upgrade", 1, killedInRoll, undoneWithoutLoss},
		{"reexec in a rolling upgrade", 1, reexecInRoll, nil},
		{"canary", 2, canary, draws},
		{"canary called back", 1, canaryCalledBack, draws},
		{"reexec in a canary", 1, reexecInCanary, draws},
		{"more instances and fewer", 2, scaled, func(g *grace) bool { return g.kind.name != "captured-unix" }},
	}
}

// draws: the kernel chooses between generations.
func draws(g *grace) bool { return g.kind.own && g.kind.network == "tcp" }

func surge(random *rand.Rand) string { return pick(random, "0", "1", "50%") }

func rollingUpgrade(g *grace, random *rand.Rand) {
	g.mustBe(g.mustAsk(control.Request{Do: control.Upgrade, Command: another(g, random), MaxSurge: surge(random)}), control.Upgraded)
}

// mustBe compares an outcome, and what serves with that.
func (g *grace) mustBe(result control.Result, outcomes ...control.Outcome) {
	if !slices.Contains(outcomes, result.Outcome) {
		g.find("%v was expected, and it is %s, %d serves: %s", outcomes, result.Outcome, result.Serving, result.Why)
	}
	s := g.await("it serves", serving)
	g.answeredBy(s.Current)
}

func crashingRoll(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Current
	result := g.mustAsk(control.Request{Do: control.Upgrade, Command: pick(random,
		[]string{"/bin/sh", "-c", "exit 3"},
		[]string{"/bin/sh", "-c", "sleep 0.2; exit 7"},
		[]string{"/bin/sh", "-c", "sleep 1000 & exit 3"},
		g.app("-fail", "/"),
	), MaxSurge: surge(random)})
	g.mustBe(result, control.Failed)
	if result.Serving != before {
		g.find("%d serves, before it was %d", result.Serving, before)
	}
}

// killedInRoll kills whatever there is: one of the old ones, or one of the new.
func killedInRoll(g *grace, random *rand.Rand) {
	result := g.beginWith(control.Request{Do: control.Upgrade, Command: another(g, random), MaxSurge: surge(random)})
	g.kill(g.victim(random))
	g.mustBe(g.end(result), control.Upgraded, control.Failed, control.Undone)
}

// reexecInRoll: it waits for the upgrade.
func reexecInRoll(g *grace, random *rand.Rand) {
	result := g.beginWith(control.Request{Do: control.Upgrade, Command: another(g, random), MaxSurge: surge(random)})
	g.await("the upgrade begins", func(s control.Status) bool { return s.State == "upgrading" || len(result) > 0 })
	reexec(g, random)
	g.mustBe(g.end(result), control.Upgraded)
}

func canary(g *grace, random *rand.Rand) {
	g.mustBe(g.mustAsk(control.Request{Do: control.Upgrade, Command: another(g, random), Canary: "10%:200ms,50%:200ms"}), control.Upgraded)
}

// beginCanary has a generation share until something is done about it.
func (g *grace) beginCanary(random *rand.Rand) (result chan control.Result) {
	result = g.beginWith(control.Request{Do: control.Upgrade, Command: another(g, random), Canary: "10%,50%"})
	g.await("a generation shares", sharing)
	return result
}

func sharing(s control.Status) bool {
	return slices.ContainsFunc(s.Generations, func(g control.Generation) bool { return g.Phase == "sharing" })
}

func canaryCalledBack(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Current
	result := g.beginCanary(random)
	g.mustAsk(control.Request{Do: control.Rollback})
	g.mustBe(g.end(result), control.Undone)
	if s := g.await("it serves", serving); s.Current != before {
		g.find("%d serves after a canary was called back, before it was %d", s.Current, before)
	}
}

// reexecInCanary: who has asked is told that another grace process goes on with it.
func reexecInCanary(g *grace, random *rand.Rand) {
	result := g.beginCanary(random)
	reexec(g, random)
	if r := g.end(result); r.Outcome != control.Reexeced {
		g.find("an upgrade that another grace process goes on with is answered by %s: %s", r.Outcome, r.Why)
	}
	g.await("a generation shares still", sharing)
	if r := g.mustAsk(control.Request{Do: control.Promote, Fully: true}); r.Outcome != control.Promoted {
		g.find("a promotion of what shares: %s: %s", r.Outcome, r.Why)
	}
}

// scaled goes back to the number before: what grace has open is compared at the end.
func scaled(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Instances
	for _, n := range []int{before + 1 + random.IntN(2), before} {
		r := g.mustAsk(control.Request{Do: control.Scale, Instances: n})
		g.mustBe(r, control.Scaled)
		if r.Instances != n {
			g.find("there are %d instances instead of %d", r.Instances, n)
		}
	}
}

// beginWith asks and goes on.
func (g *grace) beginWith(r control.Request) (result chan control.Result) {
	result = make(chan control.Result, 1)
	go func() {
		defer close(result)
		g.attemptElsewhere(func() { result <- g.mustAsk(r) })
	}()
	return result
}
