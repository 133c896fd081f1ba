package machine

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// saved is the state as another grace process reads it.
func (w *world) saved() (s Snapshot, text []byte) {
	w.t.Helper()
	due := func(t Timer) time.Time {
		if w.armed[t.Number] != t || t.Number == 0 {
			return time.Time{}
		}
		return w.due[t.Number]
	}
	text, err := json.Marshal(w.m.Snapshot(due, plain))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		w.t.Fatal(err)
	}
	return s, text
}

// travel takes the machine to another grace process, if it is calm. Timers of the old one are
// armed no more, and its observations do not come.
func (w *world) travel() {
	w.t.Helper()
	if w.finished || !w.m.Calm() {
		return
	}
	s, _ := w.saved()
	m, actions, err := Restore(w.m.policy, s, w.at)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range w.m.Step(w.at, Reexeced{}) {
		if answer, ok := a.(Answer); ok {
			w.take(answer)
		}
	}
	armed := len(w.armed)
	w.m, w.armed, w.stale, w.observed = m, map[int]Timer{}, nil, map[int]bool{}
	w.announced, w.departing, w.examined = map[int]bool{}, map[int]bool{}, map[int]bool{}
	w.takeAll(actions)
	if len(w.armed) != armed {
		w.t.Fatalf("%d timers were armed, and now %d are", armed, len(w.armed))
	}
}

// kill has another grace process go on with what this one has left, whatever it is about. Nothing that was ordered is answered any
// more, nobody who waits is, and what was being started is ended.
func (w *world) kill() {
	w.t.Helper()
	s, text := w.saved()
	for i := range w.starting {
		delete(w.instances, i)
	}
	w.armed, w.stale, w.due = map[int]Timer{}, nil, map[int]time.Time{}
	w.preparing, w.starting, w.observed, w.asked = map[int]Prepare{}, map[int]bool{}, map[int]bool{}, map[int]bool{}
	w.announced, w.departing, w.holding, w.keeping, w.turning = map[int]bool{}, map[int]bool{}, map[int]bool{}, map[int]bool{}, map[int]bool{}
	w.cutovers, w.closed, w.leaving, w.examined = nil, false, false, map[int]bool{}
	m, actions, err := Restore(w.m.policy, s, w.at)
	if err != nil {
		w.t.Fatalf("%v: %s", err, text)
	}
	w.m = m
	w.takeAll(actions)
	w.checkGenerations()
	if m.mode == running && m.current == nil && m.candidate == nil && m.pending == nil { // or a takeover was given up
		w.t.Fatalf("nothing serves, and nothing is to: %s", text)
	}
}

func TestMachineTravels(t *testing.T) {
	for name, reach := range map[string]func(t *testing.T) *world{
		"it serves": serving,
		"it empties": func(t *testing.T) *world {
			w := replaced(t)
			w.expireRelief(1)
			return w
		},
		"one empties, and is started again for who waits": func(t *testing.T) *world {
			w := servingWith(t, steeredPolicy())
			w.crash(1)
			w.upgrade(t)
			return w
		},
		"one drains": func(t *testing.T) *world {
			w := serving(t)
			w.upgrade(t)
			return w
		},
		"one waits for its restart": func(t *testing.T) *world {
			w := serving(t)
			w.crash(1)
			return w
		},
		"one is killed": func(t *testing.T) *world {
			w := serving(t)
			w.upgrade(t)
			w.expirePhase(1)
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := reach(t)
			w.happen(Described{1, "hello"})
			w.happen(Tallied{1, 7})
			if !w.m.Calm() {
				t.Fatal("it is not calm")
			}
			before := jsonOf(t, w.m.Snapshot(never, plain))
			old := w.m
			w.travel()
			if w.m == old {
				t.Fatal("it is the same machine")
			}
			if after := jsonOf(t, w.m.Snapshot(never, plain)); before != after {
				t.Errorf("it was %s\nand is  %s", before, after)
			}
			w.upgrade(t)
			w.unwind()
		})
	}
}

func TestRefusalToCaptureTravels(t *testing.T) {
	p := steeredPolicy()
	p.Held = false
	w := servingWith(t, p)
	w.happen(Uncaptured{"no right"})
	s := w.m.Snapshot(never, plain)
	m, _, err := Restore(p, s, w.at)
	if err != nil {
		t.Fatal(err)
	}
	want := w.m.policy
	want.NoUpgrade = Said(plain(NoCapture))
	if w.m.policy.NoUpgrade != NoCapture || !reflect.DeepEqual(m.policy, want) {
		t.Errorf("policy %+v, was %+v", m.policy, w.m.policy)
	}
}

// plain gives a reason some words.
func plain(why Reason) string {
	switch why := why.(type) {
	case nil:
		return ""
	case Said:
		return string(why)
	}
	return fmt.Sprintf("%T%+v", why, why)
}

func never(Timer) time.Time { return time.Time{} }

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTimersTravelWithWhatIsLeft(t *testing.T) {
	w := serving(t)
	w.upgrade(t)
	s := w.m.Snapshot(func(of Timer) time.Time {
		if of == w.m.instances[1].timer {
			return w.at.Add(-time.Hour)
		}
		return w.at.Add(5 * time.Second)
	}, plain)
	_, actions, err := Restore(w.m.policy, s, w.at)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range actions {
		a, ok := a.(Arm)
		if !ok {
			continue
		}
		want := 5 * time.Second
		if a.Timer.Instance == 1 {
			want = time.Nanosecond // overdue
		}
		if a.After != want {
			t.Errorf("timer %+v is armed for %s", a.Timer, a.After)
		}
	}
}

func TestMachineStaysWhileSomethingIsUnderWay(t *testing.T) {
	for name, reach := range map[string]func(t *testing.T) *world{
		"the first start": func(t *testing.T) *world { return newWorld(t, anyPolicy()) },
		"an upgrade":      func(t *testing.T) *world { w, _ := candidateStarted(t); return w },
		"it settles":      replaced,
		"a restart": func(t *testing.T) *world {
			w := serving(t)
			w.crash(1)
			w.expirePhase(2)
			return w
		},
		"it stops": func(t *testing.T) *world {
			w := serving(t)
			w.happen(StopRequested{})
			return w
		},
		"a preparation that was cut short": func(t *testing.T) *world {
			p := anyPolicy()
			p.DrainDelay = time.Minute
			w := servingWith(t, p)
			w.happen(UpgradeRequested{})
			w.happen(StopRequested{})
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			if reach(t).m.Calm() {
				t.Error("it is calm")
			}
		})
	}
}

// TestForeignState: what a newer grace process knows is not guessed.
func TestForeignState(t *testing.T) {
	w := serving(t)
	w.end(w.processes[w.m.instances[1].PID], Exit{Code: 3})
	text := jsonOf(t, w.m.Snapshot(never, plain))
	for why, change := range map[string][2]string{
		"levitating":             {`"Stage":"current"`, `"Stage":"levitating"`},
		"dreaming":               {`"Phase":"draining"`, `"Phase":"dreaming"`},
		"has no generation 4711": {`"Current":1`, `"Current":4711`},
	} {
		var s Snapshot
		err := json.Unmarshal([]byte(strings.Replace(text, change[0], change[1], 1)), &s)
		if err == nil {
			_, _, err = Restore(w.m.policy, s, w.at)
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	m, _, err := Restore(w.m.policy, w.m.Snapshot(never, plain), w.at)
	if err != nil || m.instances[1].exit.Code != 3 || !m.instances[1].Ended {
		t.Errorf("%+v, %v", m.instances[1], err)
	}
}
