package machine

import (
	"maps"
	"slices"
	"time"
)

// Snapshot is a machine in a form that everybody can read. Another grace process can go on from one: at a reexec it is calm, and
// after the end of a grace process that was killed it is as the last event has left it.
type Snapshot struct {
	State                string               `json:"-"`         // starting, serving, upgrading, stopping
	Generation, Instance int                  `json:",omitzero"` // the numbers given last
	Batches              int                  `json:",omitzero"` // as many numbers were given to batches
	Instances            int                  `json:"-"`         // there are to be
	Scaled               int                  `json:",omitzero"` // the same, where that was changed
	Current              int                  `json:",omitzero"`
	Steered              bool                 `json:",omitzero"` // for a grace process before this one, where it changed with NoUpgrade
	NoUpgrade            string               `json:",omitzero"`
	Notifying            []string             `json:",omitzero"`
	Status               int                  `json:",omitzero"`
	Restarts, Crashes    int                  `json:",omitzero"`
	History              []UpgradeRecord      `json:",omitzero"`
	Generations          []GenerationSnapshot `json:",omitzero"`
	RestartedAt          []time.Time          `json:",omitzero"` // what counts against the limit
	// What a calm machine has none of.
	Unserved bool            `json:",omitzero"` // no generation has been ready yet
	GoesOver bool            `json:",omitzero"` // new connections are on their way to another generation
	Pending  *PendingUpgrade `json:",omitzero"` // an upgrade that waits
}

// PendingUpgrade is an upgrade that was asked for and has not begun.
type PendingUpgrade struct {
	Command  []string     `json:",omitzero"` // nil: what the current generation runs
	Rollback bool         `json:",omitzero"`
	Canary   []CanaryStep `json:",omitempty"`
	MaxSurge *Surge       `json:",omitempty"`
}

// UpgradeRecord is an upgrade that has its result.
type UpgradeRecord struct {
	Generation, From int           `json:",omitzero"`
	Began            time.Time     `json:",omitzero"`
	Took             time.Duration `json:",omitzero"`
	Outcome          Outcome       `json:",omitzero"`
	Why              string        `json:",omitzero"`
	Command          []string      `json:",omitzero"`
	Rollback         bool          `json:",omitzero"`
	Unchanged        bool          `json:",omitzero"` // it runs what ran before
}

// GenerationSnapshot is a generation as it travels.
type GenerationSnapshot struct {
	Number     int                `json:",omitzero"`
	Of         int                `json:",omitzero"` // the generation that it is a batch of; 0: it is one itself
	Replaces   int                `json:",omitzero"` // the instance, where a batch is to take its place
	Size       int                `json:",omitzero"` // how many instances it is to have; of a batch that comes, how many there are with it
	Surge      Surge              `json:",omitzero"`
	Roll       *Roll              `json:",omitempty"` // its instances come one after another
	Stage      Stage              `json:",omitzero"`
	Since      time.Time          `json:",omitzero"` // of the stage
	Born       time.Time          `json:",omitzero"`
	Launch     LaunchSpec         `json:"Recipe,omitzero"`
	Before     *LaunchSpec        `json:",omitzero"` // what served when it came to serve
	Ran        bool               `json:",omitzero"` // the app was executed
	Touched    bool               `json:",omitzero"` // an instance was seen waiting on a held socket
	Forced     bool               `json:",omitzero"` // its drain needed KILL
	Opened     bool               `json:",omitzero"` // it has sockets of its own
	Failure    string             `json:",omitzero"`
	Ending     string             `json:",omitempty"`
	Status     int                `json:",omitzero"` // of the instance that ended last while it served
	InFlight   int                `json:",omitzero"`
	Progress   time.Time          `json:",omitzero"` // when its timers are due; zero: not armed
	LeaveBy    time.Time          `json:"Relief,omitzero"`
	Instances  []InstanceSnapshot `json:",omitzero"`
	StopSignal int                `json:",omitzero"` // in place of --stop-signal
	Upgrade    *UpgradeRecord     `json:",omitzero"` // to bring it into service, as long as that has no result
	Emptying   time.Time          `json:",omitzero"` // when it began to, if it did
	Canary     []CanaryStep       `json:",omitempty"`
	Step       int                `json:",omitzero"` // of Canary, that it is at
	Share      Share              `json:",omitzero"` // of the new connections, as long as it shares
}

// InstanceSnapshot is an instance as it travels.
type InstanceSnapshot struct {
	ID        int        `json:",omitzero"`
	Slot      int        `json:",omitzero"` // 0 to Policy.Instances-1; a restart fills it again
	Phase     Phase      `json:",omitzero"`
	Since     time.Time  `json:",omitzero"` // of the phase
	PID       int        `json:",omitzero"` // of the main process; 0 until it is started
	Processes int        `json:",omitzero"` // started or adopted and not reaped
	Failures  int        `json:",omitzero"` // in a row, in this slot
	Deadline  time.Time  `json:",omitzero"` // when the phase ends; zero: never
	Watchdog  time.Time  `json:",omitzero"` // when it is due; zero: there is none
	Aged      time.Time  `json:",omitzero"` // when it is to be replaced; zero: it is not
	InFlight  *int       `json:",omitzero"` // requests, as it said last
	Says      string     `json:",omitzero"` // of itself
	Drains    bool       `json:",omitzero"` // it sends its clients away itself
	Ended     bool       `json:",omitzero"` // its main process has ended
	Fault     bool       `json:",omitzero"` // grace ended it because it did not work
	Told      bool       `json:",omitzero"` // it was sent the stop signal
	Searched  bool       `json:",omitzero"` // what it has left behind was looked for, and told to stop
	Rest      []Leftover `json:",omitzero"`
	Code      int        `json:",omitzero"` // of the main process, once it has ended
	Signal    int        `json:",omitzero"`
	ExitKnown bool       `json:",omitzero"`
}

// AllInstances are all that the snapshot has, by number.
func (s Snapshot) AllInstances() map[int]InstanceSnapshot {
	all := map[int]InstanceSnapshot{}
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			all[i.ID] = i
		}
	}
	return all
}

// Started notes which process an instance has that was being started. It returns false if there is no such instance.
func (s *Snapshot) Started(instance, pid int) bool {
	for _, g := range s.Generations {
		for n := range g.Instances {
			if i := &g.Instances[n]; i.ID == instance && i.Phase == PhaseStarting && i.PID == 0 {
				i.PID, i.Processes = pid, 1
				return true
			}
		}
	}
	return false
}

// Calm reports whether the machine can travel: what is under way would be cut.
func (m *Machine) Calm() bool {
	if m.mode != running || m.candidate != m.sharing() || m.rolling != nil || m.scaling != nil || m.pending != nil || m.current == nil || m.current.upgrade != nil || m.cutovers > 0 || m.keeping > 0 {
		return false
	}
	for _, i := range m.instances {
		if i.Phase != PhaseBackoff && i.PID == 0 {
			return false // its start has no answer yet
		}
	}
	return !slices.ContainsFunc(m.generations, func(g *generation) bool { return g.preparing || g.Stage == StageClosing })
}

// Snapshot is the machine of this moment. The timers' owner knows when each is due, and who writes the log
// how a reason reads: nil reads as nothing.
func (m *Machine) Snapshot(due func(Timer) time.Time, words func(Reason) string) Snapshot {
	s := Snapshot{
		State: m.condition(), Generation: m.generation, Instance: m.instance, Batches: m.batches,
		Steered: m.policy.Steered, NoUpgrade: words(m.policy.NoUpgrade),
		Notifying: slices.Sorted(maps.Keys(m.notifying)), Status: m.status,
		Restarts: m.restarts, Crashes: m.crashes, Unserved: !m.served, GoesOver: m.goesOver(), Pending: m.pending.snapshot(),
		RestartedAt: slices.Clone(m.restartedAt),
	}
	s.Instances = m.policy.Instances
	if m.scaled {
		s.Scaled = m.policy.Instances
	}
	for _, a := range m.history {
		s.History = append(s.History, a.record(words))
	}
	if m.current != nil {
		s.Current = m.current.Number
	}
	s.Generations = make([]GenerationSnapshot, 0, len(m.generations))
	for _, g := range m.generations {
		s.Generations = append(s.Generations, g.snapshot(due, words))
	}
	return s
}

func (w *pendingUpgrade) snapshot() *PendingUpgrade {
	if w == nil {
		return nil
	}
	return &PendingUpgrade{w.command, w.rollback, w.canary, w.surge}
}

func (a upgradeRecord) record(words func(Reason) string) UpgradeRecord {
	r := a.UpgradeRecord
	r.Why = words(a.why)
	return r
}

func (m *Machine) condition() string {
	switch {
	case m.mode != running:
		return "stopping"
	case m.candidate != nil && m.candidate.upgrade != nil && m.candidate.upgrade.From != 0, m.rolling != nil, m.current != nil && m.current.upgrade != nil:
		return "upgrading"
	case m.current == nil:
		return "starting"
	}
	return "serving"
}

func (g *generation) snapshot(due func(Timer) time.Time, words func(Reason) string) GenerationSnapshot {
	s := g.GenerationSnapshot
	s.Failure, s.Ending, s.Progress, s.LeaveBy = words(g.failure), words(g.ending), due(g.progress), due(g.leaveBy)
	s.Instances = make([]InstanceSnapshot, 0, len(g.instances))
	for _, i := range g.instances {
		s.Instances = append(s.Instances, i.snapshot(due))
	}
	if g.upgrade != nil {
		r := g.upgrade.record(words)
		s.Upgrade = &r
	}
	return s
}

func (i *instance) snapshot(due func(Timer) time.Time) InstanceSnapshot {
	s := i.InstanceSnapshot
	s.Deadline, s.Watchdog, s.Aged = due(i.timer), due(i.watchdog), due(i.aging)
	s.Code, s.Signal, s.ExitKnown = i.exit.Code, int(i.exit.Signal), !i.exit.Unknown
	return s
}
