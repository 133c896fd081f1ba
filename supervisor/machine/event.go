package machine

import (
	"syscall"
	"time"
)

// Event is one fact from outside; the types below are all there are. What follows from each is its method step or, where it
// is in the life of an instance, meet.
type Event interface{ step(m *Machine) }

type (
	// UpgradeRequested asks for a new generation: of the command, or of what the
	// current one runs if that is nil. A request that has a number is answered.
	UpgradeRequested struct {
		Request  int
		Command  []string
		Rollback bool         // of what ran before the current one
		Canary   []CanaryStep // nil: as the policy has it
		MaxSurge *Surge       // nil: as the policy has it
	}
	// PromoteRequested asks for the next step of a generation that shares, or for all new connections.
	PromoteRequested struct {
		Request int
		Fully   bool
	}
	// Rejected says that a generation has not passed its check.
	Rejected struct {
		Generation int
		Why        string
	}
	// StopRequested asks for the end of everything; as a signal that comes again after
	// a while, for an immediate one.
	StopRequested struct{ Request int }
	// KillRequested asks for an immediate end.
	KillRequested struct{ Request int }
	// ReexecRequested asks for another grace process in place of this one.
	ReexecRequested struct{ Request int }
	// ReexecDelayed says that something has come in between that cannot travel.
	ReexecDelayed struct{}
	// ReexecFailed says that there is no other grace process.
	ReexecFailed struct{ Why string }
	// Reexeced says that there is one, which waits for the end of this one.
	Reexeced struct{ PID int }
	// SignalReceived is a signal that is the app's business.
	SignalReceived struct {
		Signal  syscall.Signal
		Request int
	}

	// Prepared answers a prepare action that found all that a start needs.
	Prepared struct {
		Generation int
		Launch     LaunchSpec
	}
	// PrepareFailed answers one that did not.
	PrepareFailed struct {
		Generation int
		Why        string
		Status     int
	}

	// Started and startFailed answer a start action.
	Started struct {
		Instance int
		PID      int
	}
	StartFailed struct {
		Instance int
		Exit     Exit
	}
	// Touched says that an instance was seen waiting on a held socket.
	Touched struct{ Instance int }
	// Opened says that an instance listens on a socket of its own.
	Opened struct{ Instance int }
	// Unreadied says why an instance is not ready yet.
	Unreadied struct {
		Instance int
		Why      string
	}
	// Obstructed says what was seen to keep an instance from serving; nothing, when it is over.
	Obstructed struct {
		Instance int
		Why      string
	}
	// Readied says that an instance serves.
	Readied struct{ Instance int }
	// Notified says that the app has sent READY=1.
	Notified struct{ Instance int }
	// Moved says that an instance's main process is another one now, which is
	// followed from here on.
	Moved struct {
		Instance int
		PID      int
	}
	// Exited says that a process has ended, and emptied, which always follows,
	// that nothing of its process group is left.
	Exited struct {
		Instance int
		PID      int
		Exit     Exit
	}
	Emptied struct {
		Instance int
		PID      int
	}

	// Left says what an ended instance has left behind, after a tellRest action.
	Left struct {
		Instance int
		Rest     []Leftover
	}

	// Extended asks for more time to start or to drain.
	Extended struct {
		Instance int
		By       time.Duration
	}
	// Pinged is a sign of life for the watchdog.
	Pinged struct{ Instance int }
	// Withdrawn says that the app has sent STOPPING=1: it ends, whether or not it
	// was told to.
	Withdrawn struct{ Instance int }
	// Tallied is how many requests an app says are in flight.
	Tallied struct {
		Instance int
		InFlight int
	}
	// Exempted says that the app sends its clients away itself when it is told to stop.
	Exempted struct{ Instance int }
	// Described is what an app says about itself.
	Described struct {
		Instance int
		Text     string
	}

	// Steered answers a steer action: new connections go where they are to go, unless it says why not.
	Steered struct {
		Generation int
		Why        string
	}
	// Counted answers a count action.
	Counted struct {
		Generation int
		InFlight   int
		Why        string // why it could not be counted
	}
	// Quieted answers an observe action: nothing waits for the generation any more, and nothing goes on in these
	// processes.
	Quieted struct {
		Generation int
		PIDs       []int
	}
	// Awaited says, as often as it is seen during an observe action, that connections wait where an instance has left
	// its socket.
	Awaited struct{ Generation int }
	// Revived says that a held listener had been shut down by an app.
	Revived struct {
		Listener string
		Why      string // why it could not be revived
		// Replaced says that it is another socket now, which the generation in
		// service does not have.
		Replaced bool
	}
	// Uncaptured says that the app's sockets cannot be captured here, and why.
	Uncaptured struct{ Why string }
	// Closed says that an app has shut down a captured listener.
	Closed struct {
		Generation int
		Address    string
	}
	// Noticed is something that went wrong beside the course of things.
	Noticed struct{ Text, Why string }
	// FellBack says that an instance cannot be looked at.
	FellBack struct {
		Instance int
		Why      string
	}
	// TimerExpired comes from an arm action. A timer that was armed for
	// something that is over is known by its number.
	TimerExpired struct{ Timer Timer }
)

// instanceEvent is an event in one instance's life.
type instanceEvent interface {
	meet(m *Machine, i *instance)
}

// meet passes over an instance that is unknown: it has exited, and nothing that comes late matters any more.
func (m *Machine) meet(instance int, ev instanceEvent) {
	if i := m.instances[instance]; i != nil {
		ev.meet(m, i)
	}
}

func (ev Started) step(m *Machine)     { m.meet(ev.Instance, ev) }
func (ev StartFailed) step(m *Machine) { m.meet(ev.Instance, ev) }
func (ev Touched) step(m *Machine)     { m.meet(ev.Instance, ev) }
func (ev Opened) step(m *Machine)      { m.meet(ev.Instance, ev) }
func (ev Unreadied) step(m *Machine)   { m.meet(ev.Instance, ev) }
func (ev Obstructed) step(m *Machine)  { m.meet(ev.Instance, ev) }
func (ev Readied) step(m *Machine)     { m.meet(ev.Instance, ev) }
func (ev Notified) step(m *Machine)    { m.meet(ev.Instance, ev) }
func (ev Moved) step(m *Machine)       { m.meet(ev.Instance, ev) }
func (ev Exited) step(m *Machine)      { m.meet(ev.Instance, ev) }
func (ev Emptied) step(m *Machine)     { m.meet(ev.Instance, ev) }
func (ev Left) step(m *Machine)        { m.meet(ev.Instance, ev) }
func (ev Extended) step(m *Machine)    { m.meet(ev.Instance, ev) }
func (ev Pinged) step(m *Machine)      { m.meet(ev.Instance, ev) }
func (ev Withdrawn) step(m *Machine)   { m.meet(ev.Instance, ev) }
func (ev Tallied) step(m *Machine)     { m.meet(ev.Instance, ev) }
func (ev Exempted) step(m *Machine)    { m.meet(ev.Instance, ev) }
func (ev Described) step(m *Machine)   { m.meet(ev.Instance, ev) }
func (ev FellBack) step(m *Machine)    { m.meet(ev.Instance, ev) }

func (Touched) meet(_ *Machine, i *instance)      { i.generation.Touched = true }
func (Opened) meet(_ *Machine, i *instance)       { i.generation.Opened = true }
func (ev Unreadied) meet(_ *Machine, i *instance) { i.unready = ev.Why }
func (Notified) meet(m *Machine, i *instance)     { m.notifying[i.generation.Launch.Executable] = true }
func (ev Tallied) meet(_ *Machine, i *instance)   { i.InFlight = &ev.InFlight }
func (Exempted) meet(_ *Machine, i *instance)     { i.Drains = true }

func (ev FellBack) meet(m *Machine, i *instance) {
	m.say(Report{Fact: ReadinessUnseen, Generation: i.generation.Named(), Instance: i.ID, Why: said(ev.Why)})
}

func (ev Described) meet(m *Machine, i *instance) {
	i.Says = ev.Text
	m.say(Report{Fact: AppDescribed, Generation: i.generation.Named(), Instance: i.ID, Why: said(ev.Text)})
}

func (ev Noticed) step(m *Machine) {
	m.say(Report{Fact: TroubleNoticed, Said: ev.Text, Why: said(ev.Why)})
}
