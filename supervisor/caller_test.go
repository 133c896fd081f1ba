package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// TestSlowCallerLosesReportsAndNotTheResult: the loop never waits for one.
func TestSlowCallerLosesReportsAndNotTheResult(t *testing.T) {
	c := newCallers("a file")
	lines := make(chan control.Line, 3)
	c.admit(asked{as: func(request int) machine.Event { return machine.UpgradeRequested{Request: request} }, lines: lines})
	for range 10 {
		c.hear(time.Unix(1, 0), line{level: warn, text: "hello", event: eventCrashed, why: "so", Report: machine.Report{Generation: 3, Took: time.Second}})
	}
	c.Answer(machine.Answer{Request: 1, Result: machine.Result{Outcome: machine.OutcomeFailed, Why: machine.Said("because"), Took: time.Second, Ran: true}})
	c.Answer(machine.Answer{Request: 1, Result: machine.Result{Outcome: machine.OutcomeUpgraded}}) // nobody waits any more
	var got []control.Line
	for line := range lines {
		got = append(got, line)
	}
	if len(got) != 3 || got[0].Report == nil || got[2].Result == nil {
		t.Fatalf("lines: %+v", got)
	}
	if r := *got[0].Report; r.Level != "warn" || r.Text != "hello" || r.Fact != "crashed" || r.Why != "so" || r.Generation != 3 || r.Took != 1 {
		t.Errorf("report: %+v", r)
	}
	if r := *got[2].Result; r.Outcome != control.Failed || r.Why != "because" || r.Output != "a file" || r.Took != 1 {
		t.Errorf("result: %+v", r)
	}
}

func TestOutputIsNamedWhereThereCanBeSome(t *testing.T) {
	for _, c := range []struct {
		result machine.Result
		want   string
	}{
		{machine.Result{Outcome: machine.OutcomeFailed, Ran: true}, "a file"},
		{machine.Result{Outcome: machine.OutcomeUndone, Ran: true}, "a file"},
		{machine.Result{Outcome: machine.OutcomeFailed}, ""},
		{machine.Result{Outcome: machine.OutcomeUpgraded, Ran: true}, ""},
	} {
		if m := resultMessage(c.result, "a file"); m.Output != c.want {
			t.Errorf("%+v: %q", c.result, m.Output)
		}
	}
}

func collect(lines <-chan control.Line) (texts []string, r *control.Result) {
	for line := range lines {
		if line.Report != nil {
			texts = append(texts, line.Report.Text)
		}
		if line.Result != nil {
			r = line.Result
		}
	}
	return texts, r
}

func TestDeskBringsTheResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{startTime: 400 * time.Millisecond, drainTime: 2 * time.Second}
		l := startLoop(f, testPolicy())
		d := &controlBackend{loop: l, apps: &host.Host{Reaper: new(childproc.Reaper), Farewells: host.NewFarewells(), Looks: make(host.Semaphore, 1)}}
		time.Sleep(time.Second)
		lines, err := d.Ask(t.Context(), control.Request{Do: control.Upgrade, Command: []string{"b"}})
		if err != nil {
			t.Fatal(err)
		}
		texts, r := collect(lines)
		if r == nil || r.Outcome != control.Upgraded || r.Took != 0.4 || len(texts) != 6 || texts[0] != "upgrade begins" || texts[5] != "upgraded" {
			t.Errorf("reports %q, result %+v", texts, r)
		}
		status, err := d.Status(t.Context())
		if err != nil || status.Current != 2 || status.State != "serving" || len(status.Generations) != 2 ||
			status.Generations[0].Phase != "draining" || status.Generations[1].Command[0] != "b" || len(status.Upgrades) != 1 {
			t.Errorf("%+v, %v", status, err)
		}
		lines, err = d.Ask(t.Context(), control.Request{Do: control.Stop})
		if err != nil {
			t.Fatal(err)
		}
		if _, r := collect(lines); r == nil || r.Outcome != control.Stopped {
			t.Errorf("result of the stop: %+v", r)
		}
		<-l.done
		if _, err := d.Ask(t.Context(), control.Request{Do: control.Upgrade}); err == nil {
			t.Error("a loop that has ended was asked")
		}
		if _, err := d.Status(t.Context()); err == nil {
			t.Error("a loop that has ended has a status")
		}
	})
}

func TestDeskRefusesWhatItCannotDo(t *testing.T) {
	if _, err := (&controlBackend{}).Ask(t.Context(), control.Request{Do: "dance"}); err == nil {
		t.Error("an unknown request was taken")
	}
}
