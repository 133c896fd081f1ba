package supervisor

import (
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/machine"
)

func statusMessage(s machine.Snapshot) control.Status {
	status := control.Status{
		Version: control.Protocol, State: s.State, Current: shown(s.Current), Restarts: s.Restarts, Crashes: s.Crashes,
		Instances: s.Instances, Generations: []control.Generation{}, Upgrades: []control.UpgradeRecord{},
	}
	for _, g := range s.Generations {
		status.Generations = append(status.Generations, generationMessage(g))
	}
	for _, a := range s.History {
		status.Upgrades = append(status.Upgrades, control.UpgradeRecord{
			Generation: a.Generation, From: shown(a.From), Began: a.Began, Took: a.Took.Seconds(),
			Outcome: control.Outcome(a.Outcome), Why: a.Why, Command: a.Command, Rollback: a.Rollback, Unchanged: a.Unchanged,
		})
	}
	return status
}

func generationMessage(g machine.GenerationSnapshot) control.Generation {
	status := control.Generation{
		Number: shown(g.Named()), Batch: g.Of != 0, Share: shareOf(g.Share), Phase: g.Stage.String(), Since: g.Since, Born: g.Born,
		Command: g.Launch.Command, Executable: g.Launch.Executable, Dir: g.Launch.Dir,
		Instances: []control.Instance{}, Until: untilOf(g),
	}
	for _, i := range g.Instances {
		status.Instances = append(status.Instances, instanceMessage(i))
	}
	return status
}

// untilOf is when a generation that was replaced comes to its next phase, or its end, at the latest.
func untilOf(g machine.GenerationSnapshot) *time.Time {
	until := g.LeaveBy
	if g.Stage == machine.StageDraining {
		for _, i := range g.Instances {
			if i.Deadline.After(until) {
				until = i.Deadline
			}
		}
	}
	if until.IsZero() {
		return nil
	}
	return &until
}

func instanceMessage(i machine.InstanceSnapshot) control.Instance {
	status := control.Instance{ID: i.ID, Slot: i.Slot, PID: i.PID, Phase: i.Phase.String(), Since: i.Since, Requests: i.InFlight, Says: i.Says}
	for _, r := range i.Rest {
		status.Rest = append(status.Rest, control.Remnant{PID: r.PID, Command: r.Command})
	}
	return status
}
