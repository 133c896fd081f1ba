package machine

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"
)

// Snapshot is a machine in a form that everybody can read. Another grace can go on from one, where no upgrade is under way
// and nobody waits for an answer.
type Snapshot struct {
	State                string `json:"-"` // starting, serving, upgrading, stopping
	Generation, Instance int    // the numbers given last
	Current              int
	Steered              bool // for a grace before this one, where it changed with NoUpgrade
	NoUpgrade            string
	Notifying            []string
	Status               int
	Restarts, Crashes    int
	History              []UpgradeRecord
	Generations          []GenerationSnapshot
}

// UpgradeRecord is an upgrade that has its result.
type UpgradeRecord struct {
	Generation, From int
	Began            time.Time
	Took             time.Duration
	Outcome          Outcome
	Why              string
	Command          []string
	Rollback         bool
	Unchanged        bool // it runs what ran before
}

type GenerationSnapshot struct {
	Number               int
	Stage                string
	Since, Born          time.Time
	Recipe               Recipe
	Before               *Recipe
	Ran, Touched, Forced bool
	Opened               bool
	Failure              string
	Ending               string `json:",omitempty"`
	Status, InFlight     int
	Progress, Relief     time.Time // when the timers are due; zero: not armed
	Instances            []InstanceSnapshot
}

type InstanceSnapshot struct {
	ID, Slot       int
	Phase          string
	Since          time.Time
	PID, Processes int
	Failures       int
	Deadline       time.Time // when the phase ends; zero: never
	Watchdog       time.Time // when it is due; zero: there is none
	InFlight       *int
	Says           string
	Ended, Fault   bool
	Told, Searched bool
	Rest           []Leftover
	Code           int // of the main process, once it has ended
	Signal         int
	ExitKnown      bool
}

// Instances are all that the snapshot has, by number.
func (s Snapshot) Instances() map[int]InstanceSnapshot {
	all := map[int]InstanceSnapshot{}
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			all[i.ID] = i
		}
	}
	return all
}

// Calm reports whether the machine can travel: what is under way would be cut.
func (m *Machine) Calm() bool {
	if m.mode != running || m.candidate != nil || m.wish != nil || m.current == nil || m.current.attempt != nil || m.cutovers > 0 {
		return false
	}
	for _, i := range m.Instances {
		if i.Phase != PhaseBackoff && i.pid == 0 {
			return false // its start has no answer yet
		}
	}
	return !slices.ContainsFunc(m.generations, func(g *generation) bool { return g.preparing })
}

// Snapshot is the machine of this moment. The timers' owner knows when each is due, and who writes the log
// how a reason reads: nil reads as nothing.
func (m *Machine) Snapshot(due func(Timer) time.Time, words func(Reason) string) Snapshot {
	s := Snapshot{
		State: m.condition(), Generation: m.generation, Instance: m.instance,
		Steered: m.policy.Steered, NoUpgrade: words(m.policy.NoUpgrade),
		Notifying: slices.Sorted(maps.Keys(m.notifying)), Status: m.status,
		Restarts: m.restarts, Crashes: m.crashes,
	}
	for _, a := range m.history {
		s.History = append(s.History, a.record(words))
	}
	if m.current != nil {
		s.Current = m.current.number
	}
	for _, g := range m.generations {
		s.Generations = append(s.Generations, g.snapshot(due, words))
	}
	return s
}

func (a upgradeRecord) record(words func(Reason) string) UpgradeRecord {
	return UpgradeRecord{
		Generation: a.Generation, From: a.From, Began: a.Began, Took: a.Took, Outcome: a.Outcome,
		Why: words(a.Why), Command: a.Command, Rollback: a.Rollback, Unchanged: a.Unchanged,
	}
}

func (r UpgradeRecord) attempt() upgradeRecord {
	return upgradeRecord{
		Generation: r.Generation, From: r.From, Began: r.Began, Took: r.Took, Outcome: r.Outcome,
		Why: said(r.Why), Command: r.Command, Rollback: r.Rollback, Unchanged: r.Unchanged,
	}
}

func (m *Machine) condition() string {
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

func (g *generation) snapshot(due func(Timer) time.Time, words func(Reason) string) GenerationSnapshot {
	s := GenerationSnapshot{
		Number: g.number, Stage: g.stage.String(), Since: g.since, Born: g.born, Recipe: g.recipe, Before: g.before,
		Ran: g.ran, Touched: g.touched, Opened: g.opened, Forced: g.forced, Failure: words(g.failure), Ending: words(g.ending), Status: g.status, InFlight: g.inFlight,
		Progress: due(g.progress), Relief: due(g.relief),
	}
	for _, i := range g.instances {
		s.Instances = append(s.Instances, i.snapshot(due))
	}
	return s
}

func (i *instance) snapshot(due func(Timer) time.Time) InstanceSnapshot {
	return InstanceSnapshot{
		ID: i.id, Slot: i.slot, Phase: i.Phase.String(), Since: i.Since, PID: i.pid, Processes: i.processes,
		Failures: i.failures, Deadline: due(i.timer), Watchdog: due(i.watchdog), InFlight: i.inFlight, Says: i.says,
		Told: i.told, Searched: i.searched, Rest: i.rest,
		Ended: i.ended, Fault: i.fault, Code: i.exit.Code, Signal: int(i.exit.Signal), ExitKnown: !i.exit.Unknown,
	}
}

// Restore gives the machine of a state, and what is to be done first: to arm the timers
// with what is left of their time, and to look at those that empty.
func Restore(p Policy, s Snapshot, at time.Time) (*Machine, []Action, error) {
	p.NoUpgrade = said(s.NoUpgrade)
	m := NewMachine(p)
	m.at, m.generation, m.instance, m.status, m.served = at, s.Generation, s.Instance, s.Status, true
	m.restarts, m.crashes = s.Restarts, s.Crashes
	for _, r := range s.History {
		m.history = append(m.history, r.attempt())
	}
	for _, executable := range s.Notifying {
		m.notifying[executable] = true
	}
	for _, saved := range s.Generations {
		g, err := m.restoreGeneration(saved)
		if err != nil {
			return nil, nil, err
		}
		m.generations = append(m.generations, g)
	}
	if m.current = m.find(s.Current); m.current == nil {
		return nil, nil, fmt.Errorf("the state has no generation %d, the one that it names as current", s.Current)
	}
	for _, g := range m.generations {
		if g.before != nil && m.find(g.before.Generation) == nil && !slices.Contains(m.retired, g.before.Generation) {
			m.retired = append(m.retired, g.before.Generation)
		}
	}
	return m, m.actions, nil
}

func (m *Machine) restoreGeneration(s GenerationSnapshot) (*generation, error) {
	stage := slices.Index(stageNames[:], s.Stage)
	if stage < 0 {
		return nil, fmt.Errorf("the state has a generation in the unknown stage %q", s.Stage)
	}
	g := &generation{
		number: s.Number, stage: Stage(stage), since: s.Since, born: s.Born, recipe: s.Recipe, before: s.Before,
		ran: s.Ran, touched: s.Touched, opened: s.Opened, forced: s.Forced, failure: said(s.Failure), ending: said(s.Ending), status: s.Status, inFlight: s.InFlight,
	}
	for _, saved := range s.Instances {
		if err := m.restoreInstance(g, saved); err != nil {
			return nil, err
		}
	}
	g.progress = m.rearm(Timer{generation: g.number}, s.Progress)
	g.relief = m.rearm(Timer{relief: g.number}, s.Relief)
	if g.stage == StageEmptying {
		m.observe(g)
	}
	return g, nil
}

func (m *Machine) restoreInstance(g *generation, s InstanceSnapshot) error {
	phase := slices.Index(phaseNames[:], s.Phase)
	if phase < 0 {
		return fmt.Errorf("the state has an instance in the unknown phase %q", s.Phase)
	}
	i := &instance{
		id: s.ID, slot: s.Slot, generation: g, Phase: Phase(phase), Since: s.Since, pid: s.PID, processes: s.Processes,
		failures: s.Failures, deadline: s.Deadline, inFlight: s.InFlight, says: s.Says, ended: s.Ended, fault: s.Fault,
		signDue: s.Watchdog, told: s.Told, searched: s.Searched, rest: s.Rest,
		exit: Exit{Code: s.Code, Signal: syscall.Signal(s.Signal), Unknown: !s.ExitKnown},
	}
	m.Instances[i.id] = i
	g.instances = append(g.instances, i)
	i.timer = m.rearm(Timer{Instance: i.id}, s.Deadline)
	i.watchdog = m.rearm(Timer{watchdog: i.id}, s.Watchdog)
	if i.ended && i.Phase == PhaseDraining && !i.searched {
		m.tellRest(i)
	}
	return nil
}

// rearm lets a timer that is overdue expire at once.
func (m *Machine) rearm(t Timer, due time.Time) Timer {
	if due.IsZero() {
		return Timer{}
	}
	return m.arm(t, max(due.Sub(m.at), time.Nanosecond))
}
