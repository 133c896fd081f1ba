package supervisor

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// steeringHost has fake instances, and a real way to the steering.
type steeringHost struct {
	fakePerformer
	real *host.Host
}

func (h *steeringHost) Prepare(p machine.Prepare) {
	h.real.Launches[p.Generation] = host.NewPreparation(nil)
	h.fakeHost.Prepare(p)
}
func (h *steeringHost) Retire(a machine.Retire)   { h.real.Retire(a) }
func (h *steeringHost) Steer(a machine.Steer)     { h.real.Steer(a) }
func (h *steeringHost) LetGo(a machine.LetGo)     { h.real.LetGo(a) }
func (h *steeringHost) Observe(o machine.Observe) { h.real.Observe(o) }

// Whoever has the steering for long, such as an app that binds while grace looks for who has its sockets, does not hold
// up what else happens.
func TestLoopGoesOnWhileTheSteeringIsBusy(t *testing.T) {
	p := testPolicy()
	p.Held, p.Steered, p.Settle, p.DrainDelay = false, true, 0, 0
	busy, err := steering.NewSteering(nil)
	if err != nil {
		t.Fatal(err)
	}
	release := sync.OnceFunc(busy.Resume)
	defer func() {
		release()
		busy.Close()
	}()
	f := &fakeHost{drainTime: time.Millisecond, startTime: time.Millisecond}
	l := newLoop(p, "nowhere")
	f.attach(l)
	real := &host.Host{
		Steering: busy, Post: l.post, Launches: map[int]*host.Preparation{}, Reaper: new(childproc.Reaper),
		Running: map[int]*host.InstanceProcess{}, Programs: map[int]host.Program{}, Farewells: host.NewFarewells(), Ending: make(chan struct{}),
	}
	real.Options.Policy = p
	l.performer = &steeringHost{l.performer.(fakePerformer), real}
	if _, err := busy.Suspend(); err != nil { // it has the lock from now on
		t.Fatal(err)
	}
	go l.run()
	awaitPhases(t, l, map[int]string{1: "ready"})
	l.post(machine.UpgradeRequested{})
	awaitPhases(t, l, map[int]string{1: "ready", 2: "ready"})
	l.post(machine.Noticed{Text: "something else"})
	awaitPhases(t, l, map[int]string{1: "ready", 2: "ready"}) // nobody is told to stop
	release()
	awaitPhases(t, l, map[int]string{2: "ready"})
	l.post(machine.StopRequested{})
	<-l.done
	if err := real.Close(); err != nil {
		t.Error(err)
	}
}

// awaitPhases asks the loop until its instances are in these phases.
func awaitPhases(t *testing.T, l *loop, want map[int]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := map[int]string{}
	for !maps.Equal(got, want) {
		s, err := (&controlBackend{loop: l}).Snapshot(ctx)
		if err != nil {
			t.Fatalf("the loop does not answer: %v; the instances were %v, and are to be %v", err, got, want)
		}
		clear(got)
		for _, g := range s.Generations {
			for _, i := range g.Instances {
				got[i.ID] = i.Phase
			}
		}
	}
}
