package supervisor

import (
	"github.com/gracerun/grace/supervisor/control"
)

// picture is what the machine knows of a moment.
func (m *machine) picture() control.Status {
	s := control.Status{
		Version: control.Protocol, State: m.condition(), Restarts: m.restarts, Crashes: m.crashes,
		Generations: []control.Generation{}, Upgrades: []control.Attempt{},
	}
	if m.current != nil {
		s.Current = m.current.number
	}
	for _, g := range m.generations {
		s.Generations = append(s.Generations, g.picture())
	}
	for _, a := range m.history {
		s.Upgrades = append(s.Upgrades, a.picture())
	}
	return s
}

func (m *machine) condition() string {
	switch {
	case m.mode != running:
		return "stopping"
	case m.candidate != nil && m.candidate.attempt.From != 0, m.current != nil && m.current.attempt != nil:
		return "upgrading"
	case m.current == nil:
		return "starting"
	}
	return "serving"
}

func (g *generation) picture() control.Generation {
	s := control.Generation{
		Number: g.number, Phase: g.stage.String(), Since: g.since, Born: g.born,
		Command: g.recipe.Command, Executable: g.recipe.Executable, Dir: g.recipe.Dir,
		Instances: []control.Instance{},
	}
	for _, i := range g.instances {
		s.Instances = append(s.Instances, i.picture())
	}
	return s
}

func (i *instance) picture() control.Instance {
	picture := control.Instance{ID: i.id, Slot: i.slot, PID: i.pid, Phase: i.phase.String(), Since: i.since, Requests: i.inFlight, Says: i.says}
	for _, r := range i.rest {
		picture.Rest = append(picture.Rest, control.Remnant{PID: r.PID, Command: r.Command})
	}
	return picture
}

func (a attempt) picture() control.Attempt {
	return control.Attempt{
		Generation: a.Generation, From: a.From, Began: a.Began, Took: a.Took.Seconds(),
		Outcome: a.Outcome, Why: a.Why, Command: a.Command, Rollback: a.Rollback, Unchanged: a.Unchanged,
	}
}
