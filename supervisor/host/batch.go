package host

import (
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
)

func (a *Host) Branch(b machine.Branch) {
	p := NewPreparation(a.Launches[b.Of].Launch)
	p.of = b.Of
	a.Launches[b.Generation] = p
	a.Farewells.batches.Store(b.Generation, b.Of)
}

// Regroup is in order with the cutovers: whoever waits for a generation to be idle waits for it.
func (a *Host) Regroup(r machine.Regroup) {
	var apps []*InstanceProcess
	var moves []steering.Move
	var left []int
	for _, m := range r.Moves {
		app := a.Running[m.Instance]
		to := steering.InstanceKey{Generation: m.Generation, Instance: app.start.Slot}
		apps, moves = append(apps, app), append(moves, steering.Move{From: steering.InstanceKey{Generation: app.generation, Instance: app.start.Slot}, To: to})
		app.generation = m.Generation
		if m.Generation < 0 {
			app.leave()
			left = append(left, m.Generation)
		}
	}
	if a.Steering == nil {
		return
	}
	a.inOrder("cannot move instances to another generation", func() error {
		for _, app := range apps {
			app.settle()
		}
		if err := a.Steering.Regroup(moves); err != nil || r.Park == 0 {
			return err
		}
		return a.Steering.Park(moves[0].From)
	})
	a.countHandshakes(left)
}
