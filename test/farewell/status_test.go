package farewell_test

import (
	"fmt"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// statusOf asks until the status is as it is waited for.
func statusOf(t *testing.T, name, what string, is func(control.Status) bool) (s control.Status) {
	t.Helper()
	c, _ := harness.Client(t, name)
	harness.Until(t, what, func() bool {
		var err error
		s, err = c.Status(t.Context())
		return err == nil && is(s)
	})
	return s
}

// generationOf is without phase where the generation has ended.
func generationOf(s control.Status, number int) (g control.Generation) {
	for _, g := range s.Generations {
		if g.Number == number {
			return g
		}
	}
	return g
}

func closingOf(s control.Status) (c control.Closing) {
	if s.Farewell != nil && len(s.Farewell.Generations) == 1 {
		c = s.Farewell.Generations[0]
	}
	return c
}

func TestStatusCountsClientsThatLeave(t *testing.T) {
	needFarewell(t)
	name := fmt.Sprintf("farewell-%d", os.Getpid())
	s := harness.Start(t, "--name", name, "--farewell", "10m", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	at := s.Address("web")
	s.AwaitReady(1)
	silent, first, second := dial(t, at), dial(t, at), dial(t, at)
	first.ask(t)
	second.ask(t)
	s.Signal(syscall.SIGHUP)
	s.AwaitReady(2)
	first.askUntilTold(t)
	second.ask(t) // also where this was slow, it is used
	first.Close()
	status := statusOf(t, name, "one client has left", func(s control.Status) bool { return closingOf(s).Left == 1 })
	if want := (control.Closing{Generation: 1, Left: 1, Open: 2, Busy: 1, Silent: 1}); closingOf(status) != want {
		t.Errorf("%+v", closingOf(status))
	}
	if f := status.Farewell; f.State != "on" || f.Within != 600 || f.Keep != 90 {
		t.Errorf("%+v", f)
	}
	g := generationOf(status, 1)
	if g.Phase != "closing" || g.Until == nil || time.Until(*g.Until) > 10*time.Minute {
		t.Errorf("%s until %v", g.Phase, g.Until)
	}
	second.Close()
	silent.Close()
	s.AwaitDrained()
	if status := statusOf(t, name, "all have left", func(s control.Status) bool { return generationOf(s, 1).Number == 0 }); len(status.Farewell.Generations) > 0 {
		t.Errorf("%+v", status.Farewell.Generations)
	}
	s.Stop()
}

func TestStatusCountsKeptConnectionsOfAnEndedGeneration(t *testing.T) {
	needFarewell(t)
	name := fmt.Sprintf("farewell-%d", os.Getpid())
	s := harness.Start(t, "--name", name, "--farewell", "auto", "--keep", "1h", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	at := s.Address("web")
	s.AwaitReady(1)
	silent, busy := dial(t, at), dial(t, at)
	silent.ask(t)
	s.Signal(syscall.SIGHUP)
	busy.askUntilTold(t)
	busy.Close()
	s.AwaitReady(2)
	s.AwaitDrained()
	status := statusOf(t, name, "one connection is kept", func(s control.Status) bool { return closingOf(s).Kept == 1 })
	if c := closingOf(status); c.Generation != 1 || c.Open != 1 || generationOf(status, 1).Number != 0 {
		t.Errorf("%+v", c)
	}
	if generation, _ := silent.ask(t); generation != "2" {
		t.Errorf("generation %s has answered", generation)
	}
	silent.Close()
	s.AwaitGeneration(ended, 1)
	if status := statusOf(t, name, "grace answers", func(control.Status) bool { return true }); len(status.Farewell.Generations) > 0 {
		t.Errorf("%+v", status.Farewell.Generations)
	}
	s.Stop()
}

func TestStatusSaysWhetherFarewellIsPossible(t *testing.T) {
	name := fmt.Sprintf("farewell-%d", os.Getpid())
	s := harness.Start(t, "--name", name, "--farewell", "2s", "--keep", "3s", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	s.AwaitReady(1)
	status := statusOf(t, name, "the programs are loaded", func(s control.Status) bool { return s.Farewell.State != "loading" })
	want := control.Farewell{State: "on", Within: 2, Keep: 3}
	if why := farewell.Supported(); why != nil {
		want = control.Farewell{State: "unavailable", Why: why.Error()}
	}
	if f := status.Farewell; f == nil || !reflect.DeepEqual(*f, want) {
		t.Errorf("%+v", f)
	}
	s.Stop()
}

func TestStatusSaysThatFarewellIsOff(t *testing.T) {
	name := fmt.Sprintf("farewell-%d", os.Getpid())
	s := harness.Start(t, "--name", name, "--farewell", "0s", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	s.AwaitReady(1)
	status := statusOf(t, name, "grace answers", func(control.Status) bool { return true })
	if f := status.Farewell; f == nil || f.State != "off" || f.Why != "" {
		t.Errorf("%+v", f)
	}
	s.Stop()
}
