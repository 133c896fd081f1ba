package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

func anyDocument(t *testing.T) *handoverState {
	t.Helper()
	m := machine.NewMachine(testPolicy())
	m.Begin(time.Now())
	for _, ev := range []machine.Event{machine.Prepared{Generation: 1, Launch: machine.LaunchSpec{Executable: "/app"}}, machine.Started{Instance: 1, PID: 1}, machine.Readied{Instance: 1}} {
		m.Step(time.Now(), ev)
	}
	return &handoverState{
		Version: stateVersion, Grace: "v1", PID: 7, Machine: m.Snapshot(func(machine.Timer) time.Time { return time.Time{} }, reasonText),
		Host: host.HostState{
			Launches: map[int]host.LaunchSpecState{1: (&host.LaunchSpec{LaunchSpec: machine.LaunchSpec{Path: "/app"}, Env: []string{"SECRET=1"}}).State()},
			Apps:     []host.InstanceProcessState{{Start: machine.Start{Generation: 1, Instance: 1}, Calls: -1}},
		},
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDocumentTravels(t *testing.T) {
	d := anyDocument(t)
	e, err := d.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(e.Document)
	if err != nil {
		t.Fatal(err)
	}
	if before, after := asJSON(t, d), asJSON(t, got); before != after {
		t.Errorf("%s\ncame as\n%s", before, after)
	}
	if l := got.Host.Launches[1].Launch(); l.Path != "/app" || l.Env[0] != "SECRET=1" {
		t.Errorf("%+v", l)
	}
}

// An older grace process goes on, rather than that a newer one's state is misunderstood.
func TestForeignDocumentIsRefused(t *testing.T) {
	for why, change := range map[string]func(d *handoverState){
		"use a newer grace":              func(d *handoverState) { d.Version = stateVersion + 1; d.Grace = "v99" },
		"version 0":                      func(d *handoverState) { d.Version = 0 },
		"how generation 1 is started":    func(d *handoverState) { d.Host.Launches = nil },
		"instance 1 without its process": func(d *handoverState) { d.Host.Apps = nil },
		"processes of no instance": func(d *handoverState) {
			d.Host.Apps = append(d.Host.Apps, host.InstanceProcessState{Start: machine.Start{Instance: 9}})
		},
		"instance 1 without its process, or": func(d *handoverState) { d.Machine.Generations[0].Instances[0].PID = 0 },
	} {
		d := anyDocument(t)
		change(d)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for _, nonsense := range []string{"", "{", `{"Version":1,"Machine":7}`} {
		if _, err := read([]byte(nonsense)); err == nil || !strings.Contains(err.Error(), "is invalid") {
			t.Errorf("%q: %v", nonsense, err)
		}
	}
}

// What a later grace process of the same version adds is no reason to refuse.
func TestUnknownFieldsArePassedOver(t *testing.T) {
	text := strings.Replace(asJSON(t, anyDocument(t)), `{"Version":1,`, `{"Version":1,"Later":[1,2],`, 1)
	if _, err := read([]byte(text)); err != nil {
		t.Error(err)
	}
}

func TestFilesAreEachOnce(t *testing.T) {
	h := host.HostState{
		Control: &host.ControlState{Listener: 9, Lock: 4}, RuntimeLock: 8,
		Apps: []host.InstanceProcessState{{Calls: -1, Fresh: map[uint64]int{7: 9}}},
	}
	h.Apps[0].Main.PIDFD, h.Apps[0].Notify.FD, h.Apps[0].Predecessors.Predecessor = 5, 6, -1
	if got := asJSON(t, h.Files()); got != "[4,5,6,8,9]" {
		t.Error(got)
	}
}

// fakeSuccessor takes over as it is told to.
type fakeSuccessor struct {
	hangs                     bool // until it is cut
	cuts                      []time.Time
	outcomes                  []machine.Event
	still, suspended, resumed int
	meanwhile                 func() // when the apps are suspended
}

func (f *fakeSuccessor) rest() <-chan struct{} { return f.wait() }

func (f *fakeSuccessor) wait() <-chan struct{} {
	f.still++
	c := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(c) })
	return c
}

func (f *fakeSuccessor) suspend() <-chan struct{} {
	f.suspended++
	if f.meanwhile != nil {
		go f.meanwhile()
	}
	return f.wait()
}

func (f *fakeSuccessor) resume() { f.resumed++ }

func (f *fakeSuccessor) handOver(_ machine.Snapshot, p *parting) machine.Event {
	if f.hangs {
		<-p.cut
		f.cuts = append(f.cuts, time.Now())
	}
	if !f.hangs {
		time.Sleep(time.Minute)
	}
	next := f.outcomes[0]
	f.outcomes = f.outcomes[1:]
	return next
}

func askReexec(t *testing.T, l *loop) *control.Result {
	t.Helper()
	lines, err := (&controlBackend{loop: l}).Ask(t.Context(), control.Request{Do: control.Reexec})
	if err != nil {
		t.Fatal(err)
	}
	var result *control.Result
	for line := range lines {
		if line.Result != nil {
			result = line.Result
		}
	}
	return result
}

func TestLoopHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(&fakeHost{startTime: time.Second, drainTime: time.Second}, testPolicy())
		f := &fakeSuccessor{outcomes: []machine.Event{machine.ReexecFailed{Why: "no"}, machine.ReexecDelayed{}, machine.Reexeced{PID: 8}}}
		l.successor = f
		time.Sleep(2 * time.Second)
		if r := askReexec(t, l); r == nil || r.Outcome != control.Failed || r.Why != "no" || r.Serving != 1 {
			t.Errorf("%+v", r)
		}
		l.post(machine.Noticed{Text: "the loop goes on", Why: ""})
		if r := askReexec(t, l); r == nil || r.Outcome != control.Reexeced || r.Took < 60 {
			t.Errorf("%+v", r)
		}
		<-l.done
		if f.resumed != 3 || f.suspended != 3 || l.status != 0 {
			t.Errorf("%+v, status %d", f, l.status)
		}
	})
}

// A new grace process that hangs does not have the old one look dead.
func TestLoopIsSeenWhileItHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(&fakeHost{startTime: time.Second, drainTime: time.Second}, testPolicy())
		l.successor = &fakeSuccessor{outcomes: []machine.Event{machine.Reexeced{PID: 8}}}
		time.Sleep(2 * time.Second)
		l.post(machine.ReexecRequested{})
		time.Sleep(30 * time.Second) // of a minute
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := &controlBackend{loop: l, apps: &host.Host{Reaper: new(childproc.Reaper), Farewells: host.NewFarewells(), Looks: make(host.Semaphore, 1)}}
		if s, err := d.Status(short); err != nil || s.Current != 1 || s.State != "serving" {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := d.Ask(short, control.Request{Do: control.Upgrade}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an upgrade that nobody waits for any more: %v", err)
		}
		<-l.done
		if _, err := d.Ask(t.Context(), control.Request{Do: control.Upgrade}); !errors.Is(err, control.ErrLeaving) {
			t.Errorf("of a loop that has ended: %v", err)
		}
	})
}

// An upgrade that is asked for in the last moment is not cut: the handover comes after it.
func TestLoopDoesNotHandOverAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(&fakeHost{startTime: time.Second, drainTime: time.Second}, testPolicy())
		f := &fakeSuccessor{outcomes: []machine.Event{machine.Reexeced{PID: 8}}}
		f.meanwhile = func() { f.meanwhile = nil; l.post(machine.UpgradeRequested{}) }
		l.successor = f
		time.Sleep(2 * time.Second)
		if r := askReexec(t, l); r == nil || r.Outcome != control.Reexeced || r.Serving != 2 {
			t.Errorf("%+v", r)
		}
		<-l.done
		if f.suspended != 2 || f.resumed != 2 {
			t.Errorf("%+v", f)
		}
	})
}

func TestStopComesBeforeAHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(&fakeHost{startTime: time.Second, drainTime: time.Second}, testPolicy())
		f := &fakeSuccessor{}
		f.meanwhile = func() { l.post(machine.StopRequested{}) }
		l.successor = f
		time.Sleep(2 * time.Second)
		if r := askReexec(t, l); r == nil || r.Outcome != control.Refused {
			t.Errorf("%+v", r)
		}
		<-l.done
	})
}

// A program that hangs holds nothing up: a generation that drains is killed in time, and the handover is begun again.
func TestLoopServesDeadlinesWhileAHandoverHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{startTime: time.Second}
		l := startLoop(host, testPolicy())
		f := &fakeSuccessor{hangs: true, outcomes: []machine.Event{machine.ReexecDelayed{}, machine.ReexecDelayed{}, machine.ReexecDelayed{}, machine.ReexecDelayed{}, machine.ReexecFailed{Why: "it hangs"}}}
		for range 100 {
			f.outcomes = append([]machine.Event{machine.ReexecDelayed{}}, f.outcomes...)
		}
		l.successor = f
		time.Sleep(2 * time.Second)
		l.post(machine.UpgradeRequested{})
		time.Sleep(2 * time.Second)
		l.post(machine.ReexecRequested{})
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if host.kills[1] == 0 || len(f.cuts) == 0 {
			t.Errorf("kills %v, cut %v", host.kills, f.cuts)
		}
		f.hangs = false
		l.post(machine.KillRequested{})
		<-l.done
	})
}
