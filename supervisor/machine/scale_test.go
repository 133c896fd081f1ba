package machine

import (
	"testing"
	"time"
)

func (w *world) scale(to int) int {
	request := w.ask()
	w.happen(ScaleRequested{Request: request, Instances: to})
	return request
}

// batch is the one that comes.
func (w *world) batch(t *testing.T) *generation {
	t.Helper()
	b := w.m.candidate
	if b == nil || b.Of == 0 {
		t.Fatalf("no instances come: %+v", b)
	}
	return b
}

func (w *world) checkScaled(t *testing.T, request, instances int) {
	t.Helper()
	if r := w.results()[request]; r.Outcome != OutcomeScaled || r.Instances != instances || w.m.current.Size != instances || w.readies(w.m.current.Number) != instances {
		t.Errorf("the answer is %+v; %d instances serve, and there are to be %d", r, w.readies(w.m.current.Number), w.m.current.Size)
	}
}

func TestScale(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			p := anyPolicy()
			if steered {
				p = steeredPolicy()
			}
			w := servingWith(t, p)
			request := w.scale(3)
			b := w.batch(t)
			for _, id := range w.startNext(b.Number) {
				if w.readies(1) != 1 {
					t.Error("one serves before all are ready")
				}
				w.readiness(id, false)
			}
			w.checkScaled(t, request, 3)
			request = w.scale(2)
			w.checkScaled(t, request, 2)
			w.leaveNext()
			if len(w.m.generations) != 1 || len(w.m.instances) != 2 {
				t.Errorf("%v", w)
			}
			w.upgradeAll(t)
			if w.m.current.Number != 2 || w.readies(2) != 2 {
				t.Errorf("%d instances serve after an upgrade", w.readies(2))
			}
		})
	}
}

func (w *world) upgradeAll(t *testing.T) {
	t.Helper()
	w.happen(UpgradeRequested{})
	w.bring(t)
}

func TestScalingByOne(t *testing.T) {
	w := serving(t)
	w.happen(ScaleRequested{By: 1})
	w.comeNext(w.batch(t).Number)
	if w.readies(1) != 2 {
		t.Errorf("%d instances serve", w.readies(1))
	}
	for range 2 {
		w.happen(ScaleRequested{By: -1})
	}
	if w.readies(1) != 1 || len(w.said(ScalingRefused)) != 1 {
		t.Errorf("%d instances serve; %+v", w.readies(1), w.said(ScalingRefused))
	}
}

func TestScalingThatFailsChangesNothing(t *testing.T) {
	w := serving(t)
	request := w.scale(3)
	ids := w.startNext(w.batch(t).Number)
	w.readiness(ids[0], false)
	w.endInstance(ids[1], Exit{Code: 3})
	if r := w.results()[request]; r.Outcome != OutcomeFailed || r.Instances != 1 || r.Why != (InstanceExited{Exit{Code: 3}}) {
		t.Errorf("the answer is %+v", r)
	}
	if w.readies(1) != 1 || w.m.instances[ids[0]].Phase != PhaseDraining || w.m.policy.Instances != 1 {
		t.Errorf("%d instances serve", w.readies(1))
	}
	w.endInstance(ids[0], Exit{})
	if len(w.m.generations) != 1 {
		t.Errorf("%v", w)
	}
}

func TestScalingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		policy func(p *Policy)
		before func(w *world)
		to     int
		why    Reason
	}{
		"too many":      {nil, nil, MostInstances + 1, InstancesBeyond{MostInstances + 1, MostInstances}},
		"one path":      {func(p *Policy) { p.OneInstance = OneInstanceOnly }, nil, 2, OneInstanceOnly},
		"no sockets":    {func(p *Policy) { p.NoUpgrade = NoSockets }, nil, 2, NoSockets},
		"grace is done": {nil, func(w *world) { w.happen(StopRequested{}) }, 2, GraceStopping},
	} {
		t.Run(name, func(t *testing.T) {
			p := anyPolicy()
			if c.policy != nil {
				c.policy(&p)
			}
			w := servingWith(t, p)
			if c.before != nil {
				c.before(w)
			}
			request := w.scale(c.to)
			if r := w.results()[request]; r.Outcome != OutcomeRefused || r.Why != c.why {
				t.Errorf("the answer is %+v", r)
			}
		})
	}
}

// One thing comes at a time.
func TestScalingAndUpgradesWaitForEachOther(t *testing.T) {
	w := upgrading(t)
	request := w.scale(2)
	if _, early := w.results()[request]; early || len(w.said(ScalingWaiting)) != 1 {
		t.Errorf("%+v", w.said(ScalingWaiting))
	}
	w.answerPrepare(2, true)
	w.comeNext(2)
	if w.m.current.Number == 2 && w.m.candidate != nil && w.m.candidate.Of != 0 {
		w.comeNext(w.m.candidate.Number)
	}
	w.checkScaled(t, request, 2)

	w = serving(t)
	request = w.scale(2)
	upgrade := w.request()
	if w.m.find(2) != nil || len(w.said(UpgradeWaiting)) != 1 {
		t.Error("the upgrade does not wait")
	}
	w.comeNext(w.batch(t).Number)
	w.checkScaled(t, request, 2)
	w.bring(t)
	if r := w.results()[upgrade]; r.Outcome != OutcomeUpgraded || w.readies(2) != 2 {
		t.Errorf("the answer is %+v", r)
	}
}

func TestLaterScalingTakesThePlaceOfAnother(t *testing.T) {
	w := upgrading(t)
	first := w.scale(2)
	w.scale(3)
	if r := w.results()[first]; r.Outcome != OutcomeSuperseded {
		t.Errorf("the answer is %+v", r)
	}
}

func TestScaledNumberStays(t *testing.T) {
	for name, next := range map[string]func(w *world){"a reexec": (*world).travel, "a kill": (*world).kill} {
		t.Run(name, func(t *testing.T) {
			w := serving(t)
			w.scale(2)
			w.comeNext(w.batch(t).Number)
			w.m.policy.Instances = 1 // what the next grace process is told
			w.m.policy.Instances, w.m.scaled = 2, true
			next(w)
			if w.m.policy.Instances != 2 || w.readies(1) != 2 || w.m.candidate != nil {
				t.Errorf("there are to be %d instances", w.m.policy.Instances)
			}
		})
	}
}

func TestUnfitInstanceIsReplaced(t *testing.T) {
	for name, steered := range steeredOrNot {
		t.Run(name, func(t *testing.T) {
			p := anyPolicy()
			if steered {
				p = steeredPolicy()
			}
			p.Instances = 2
			w := servingWith(t, p)
			w.happen(Unfit{Instance: 1, Why: "too large"})
			w.happen(Unfit{Instance: 1, Why: "too large"}) // is known
			b := w.batch(t)
			w.comeNext(b.Number)
			if w.readies(1) != 2 || len(w.said(InstanceReplaced)) != 1 || len(w.said(InstanceUnfit)) != 1 {
				t.Fatalf("%d instances serve; %+v", w.readies(1), w.said(InstanceReplaced, InstanceUnfit))
			}
			w.leaveNext()
			if w.m.instances[1] != nil || w.m.instances[2] == nil || len(w.m.instances) != 2 || w.m.candidate != nil {
				t.Errorf("%v", w)
			}
		})
	}
}

// One that could not be replaced serves on, and is not tried again at once.
func TestReplacementThatFails(t *testing.T) {
	p := anyPolicy()
	p.MaxAge = time.Hour
	w := servingWith(t, p)
	w.expire(w.m.instances[1].aging.Number)
	if r := w.said(InstanceUnfit); len(r) != 1 || r[0].Why != (OlderThan{time.Hour}) {
		t.Fatalf("%+v", r)
	}
	w.endInstance(w.startNext(w.batch(t).Number)[0], Exit{Code: 3})
	if r := w.said(ReplacementFailed); len(r) != 1 || r[0].Instance != 1 || w.readies(1) != 1 || w.m.candidate != nil {
		t.Fatalf("%+v", r)
	}
	if w.happen(Unfit{Instance: 1, Why: "too large"}); w.m.candidate != nil {
		t.Error("it is tried again at once")
	}
	w.at = w.at.Add(time.Hour)
	w.expire(w.m.instances[1].aging.Number)
	w.comeNext(w.batch(t).Number)
	if len(w.said(InstanceReplaced)) != 1 {
		t.Error("it is not tried again")
	}
}

// An app that cannot run twice ends first.
func TestReplacementOfAnInstanceThatIsToEndFirst(t *testing.T) {
	p := rollingPolicy(0, true)
	p.Instances = 1
	w := servingWith(t, p)
	w.happen(Unfit{Instance: 1, Why: "too large"})
	if w.readies(1) != 0 || len(w.starting) > 0 || len(w.said(ServingPaused)) != 1 {
		t.Fatalf("%d serve, %v start", w.readies(1), w.starting)
	}
	w.leaveNext()
	w.comeNext(1)
	if w.readies(1) != 1 || len(w.said(ServingResumed)) != 1 {
		t.Errorf("%d serve", w.readies(1))
	}
}
