package machine

import (
	"syscall"
	"time"
)

// Action is one thing to do; the types below are all there are.
type Action interface{ Perform(Performer) }

// Performer has a method for each action. None of them blocks; what comes of it is an event.
type Performer interface {
	Prepare(Prepare)
	Abandon(Abandon)
	Start(Start)
	Follow(Follow)
	Leave(Leave)
	Detach(Detach)
	Dismiss(Dismiss)
	Tell(Tell)
	TellGroup(TellGroup)
	TellRest(TellRest)
	Kill(Kill)
	Reap(Reap)
	Branch(Branch)
	Regroup(Regroup)
	Release(Release)
	Retire(Retire)
	Discard(Discard)
	Count(Count)
	Steer(Steer)
	TurnAway(TurnAway)
	LetGo(LetGo)
	Observe(Observe)
	Examine(Examine)
	Announce(Announce)
	Hold(Hold)
	Keep(Keep)
	Recall(Recall)
	Part(Part)
	Hasten(Hasten)
	Arm(Arm)
	Disarm(Disarm)
	HandOver(HandOver)
	Answer(Answer)
	Finish(Finish)
	Report(Report)
}

type (
	// Prepare resolves a generation's command and runs its check. It is
	// answered by prepared or prepareFailed, exactly once.
	Prepare struct {
		Generation int
		Command    []string    // nil: the one that grace was started with
		Again      *LaunchSpec // to be run once more as it was, instead
		Current    *LaunchSpec // what serves; nil: nothing
	}
	// Abandon cuts a prepare short; its answer still comes.
	Abandon struct{ Generation int }
	// Start starts one process. It is answered by started or startFailed; the
	// first is followed by one exited and one emptied.
	Start struct {
		Generation int
		Of         int // the number that people know the generation by
		Instance   int
		Slot       int
		// MustNotify says that the app's own READY=1 is needed too.
		MustNotify bool
		// Predecessor is the generation that this one replaces, or 0.
		Predecessor int
	}
	// Dismiss ends the wait for a started instance's readiness.
	Dismiss struct{ Instance int }
	// Tell sends a signal to an instance's main process.
	Tell struct {
		Instance int
		Signal   syscall.Signal
	}
	// TellGroup sends a signal to an instance's whole process group.
	TellGroup struct {
		Instance int
		Signal   syscall.Signal
	}
	// TellRest sends a signal to what an ended instance has left behind, but for who
	// was told already. It is answered by left, unless nothing is left.
	TellRest struct {
		Instance int
		Signal   syscall.Signal
		Told     bool // the process group was
		Crashed  bool // nobody has told the main process
	}
	// Kill ends all processes of an instance's groups, and what ended ones have left
	// behind.
	Kill struct{ Instance int }
	// Reap gives an ended process's pid back.
	Reap struct {
		Instance int
		PID      int
	}
	// Release drops what the shell keeps for an instance.
	Release struct{ Instance int }
	// Retire drops what the shell keeps for a generation.
	Retire struct{ Generation int }
	// Discard drops what retire has left of a generation: the executable, which a rollback could want.
	Discard struct{ Generation int }
	// Count asks for the connections in flight of a generation's processes.
	Count struct {
		Generation int
		PIDs       []int
	}
	// Steer sends new connections to a generation, and a share of them to another one beside it; or, with 0, keeps them from
	// all sockets that generations have of their own, for good: they wait, and are refused once the sockets close. It is
	// answered by steered, in the order of such actions. What is ordered after it about sockets (letGo, observe, retire) is
	// done after it too.
	Steer struct {
		Generation int
		Beside     int   // 0: none
		Share      Share // of it
	}
	// Examine has the check run, again and again, that a generation has to pass as long as it shares. It is answered by
	// rejected where that fails, and ends with the order to send all new connections to one generation.
	Examine struct {
		Generation int
		Beside     int // the generation that has the rest of the clients
	}
	// LetGo leaves a generation's sockets to its app alone: who comes is refused as soon
	// as that has closed them.
	LetGo struct {
		Generation int
		Shared     bool // those too that all have: nobody else accepts from them
	}
	// Observe looks at a generation's connections until they are idle and none waits
	// to be accepted; after some time the second is enough. It is answered by quieted,
	// unless the generation ends first, and awaited may come before.
	Observe struct {
		Generation int
		PIDs       []int
		Idle       time.Duration // how long idle connections are waited for
	}
	// Arm starts a timer, and disarm stops it. A jittered one may be up to half
	// as long again, so that many restarts do not fall together.
	Arm struct {
		Timer    Timer
		After    time.Duration
		Jittered bool
	}
	Disarm struct{ Timer Timer }
	// HandOver has another grace process take over. It is answered by reexecDelayed, reexecFailed
	// or reexeced.
	HandOver struct{}
	// Answer is for who waits for the result of a request.
	Answer struct {
		Request int
		Result  Result
	}
	// Finish ends the supervisor with an exit status.
	Finish struct{ Status int }
	// Report is for people, and for programs that want to know: one line of the log.
	Report struct {
		Fact       Fact
		Generation int
		Instance   int
		PID        int
		Serving    int    // the generation that serves on, or again
		Listener   string // its name
		// Connections and Requests are in flight; nil where that is not known.
		Connections, Requests *int
		Took, Within          time.Duration
		Share                 Share
		Instances             int    // that there are to be
		Said                  string // of TroubleNoticed, what
		Why                   Reason // nil for none
	}
)

func (a Prepare) Perform(p Performer)   { p.Prepare(a) }
func (a Abandon) Perform(p Performer)   { p.Abandon(a) }
func (a Start) Perform(p Performer)     { p.Start(a) }
func (a Follow) Perform(p Performer)    { p.Follow(a) }
func (a Detach) Perform(p Performer)    { p.Detach(a) }
func (a Leave) Perform(p Performer)     { p.Leave(a) }
func (a Dismiss) Perform(p Performer)   { p.Dismiss(a) }
func (a Tell) Perform(p Performer)      { p.Tell(a) }
func (a TellGroup) Perform(p Performer) { p.TellGroup(a) }
func (a TellRest) Perform(p Performer)  { p.TellRest(a) }
func (a Kill) Perform(p Performer)      { p.Kill(a) }
func (a Reap) Perform(p Performer)      { p.Reap(a) }
func (a Branch) Perform(p Performer)    { p.Branch(a) }
func (a Regroup) Perform(p Performer)   { p.Regroup(a) }
func (a Release) Perform(p Performer)   { p.Release(a) }
func (a Retire) Perform(p Performer)    { p.Retire(a) }
func (a Discard) Perform(p Performer)   { p.Discard(a) }
func (a Count) Perform(p Performer)     { p.Count(a) }
func (a Steer) Perform(p Performer)     { p.Steer(a) }
func (a TurnAway) Perform(p Performer)  { p.TurnAway(a) }
func (a LetGo) Perform(p Performer)     { p.LetGo(a) }
func (a Observe) Perform(p Performer)   { p.Observe(a) }
func (a Examine) Perform(p Performer)   { p.Examine(a) }
func (a Announce) Perform(p Performer)  { p.Announce(a) }
func (a Hold) Perform(p Performer)      { p.Hold(a) }
func (a Keep) Perform(p Performer)      { p.Keep(a) }
func (a Recall) Perform(p Performer)    { p.Recall(a) }
func (a Part) Perform(p Performer)      { p.Part(a) }
func (a Hasten) Perform(p Performer)    { p.Hasten(a) }
func (a Arm) Perform(p Performer)       { p.Arm(a) }
func (a Disarm) Perform(p Performer)    { p.Disarm(a) }
func (a HandOver) Perform(p Performer)  { p.HandOver(a) }
func (a Answer) Perform(p Performer)    { p.Answer(a) }
func (a Finish) Perform(p Performer)    { p.Finish(a) }
func (a Report) Perform(p Performer)    { p.Report(a) }
