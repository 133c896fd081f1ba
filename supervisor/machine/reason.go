package machine

import "time"

// Reason is why something happens; the types below are all there are. Its words stand beside the log.
type Reason interface{ isReason() }

type (
	// Said is what somebody outside of the machine has said.
	Said string
	// Both are two reasons for the same.
	Both struct{ First, Second Reason }
	// Cause is a reason that its name says all about.
	Cause int

	// NotReadyInTime has more if it is known what the instance lacks.
	NotReadyInTime struct {
		Instance, PID int
		After         time.Duration
		More          Reason
	}
	// InstanceExited is the end of an instance by itself. How a process has ended, an Exit, is a reason too.
	InstanceExited struct{ Exit Exit }
	// EndedOtherwise is an instance that was told to stop and has ended by something else.
	EndedOtherwise struct {
		Instance int
		Exit     Exit
	}
	// StoppedInFlight is what was counted last before the stop signal ended an instance, or was sent in spite of it.
	StoppedInFlight struct{ Connections int }
	// RequestsInFlight is what an instance has said last.
	RequestsInFlight struct{ Requests int }
	// InFlightWhenCounted is what was counted last.
	InFlightWhenCounted struct{ Connections int }
	// KilledInFlight is that of what was killed.
	KilledInFlight struct{ Connections int }
	// LeftBehind are processes of an instance that has ended.
	LeftBehind struct{ Rest []Leftover }
	// StopsWhenIdleOr says when a generation is told to stop, which need not be idle for longer.
	StopsWhenIdleOr struct{ After time.Duration }
	// NotSteered says why new connections do not go to a generation.
	NotSteered struct {
		Generation int
		Why        Reason
	}
	// CheckFailed is how the check of a generation that shares has failed.
	CheckFailed struct{ Why Reason }
	// InstancesBeyond is a number of instances that cannot be.
	InstancesBeyond struct{ To, Most int }
	// OlderThan is the limit of --max-age.
	OlderThan struct{ Age time.Duration }
	// TooManyDrain is the limit of --max-draining.
	TooManyDrain struct{ Generations int }
	// RunsTheSame says that a new generation runs what an old one did.
	RunsTheSame struct {
		Generation      int
		Executable, Dir string
	}
	// RestartPolicy decides that nothing is started again.
	RestartPolicy struct{ Restart Restart }
	// TooManyRestarts is the limit of --restart-limit.
	TooManyRestarts struct{ Limit RestartLimit }
	// ShutDownBy suspects a generation, or any app if that is 0.
	ShutDownBy struct {
		Generation int
		Ended      bool // it has just ended; else it drains
	}
	// NothingListens is a captured listener that was shut down.
	NothingListens struct{ Address string }
	// CaptureRefused is why sockets cannot be captured, which are needed for an upgrade.
	CaptureRefused struct{ Why string }
)

// The causes.
const (
	GraceStopping      Cause = iota + 1
	AskedTwice               // to stop
	NoPrevious               // nothing to roll back to
	NoCapture                // no upgrade without it
	NoSockets                // that grace could give to another generation
	NothingShares            // no generation has a share that could grow
	AskedBack                // somebody has asked for what ran before
	NeedsOwnSockets          // a share of the clients needs them
	OneInstanceOnly          // as a path leads to one process
	LaterRequest             // it asks for something else
	OtherUpgrade             // it is under way
	BelongsToManager         // who would end the app with grace
	NotCalm                  // an upgrade or a start is under way
	ConnectionsKept          // grace has connections that the app has closed
	SentStopping             // STOPPING=1
	SuccessorMayFail         // within the time of --settle
	GenerationReturned       // it serves again
	OthersReturn             // the instances that had gone for the new ones
	NothingLeft              // of the generation that served
	InstanceGone             // the one that it takes the place of
	ConnectionsWait          // in the queues of a generation that was replaced
	StopsWhenIdle            // this and the next two say when a generation is told to stop
	StopsWhenAccepted        // what waits at its own addresses
	StartsWhenAwaited        // none of its instances is ready
	SocketIsNew              // only a new generation has it
	SocketsUnused            // those of --listen
	WentToBackground         // the app's main process ended well
	NoAnswer                 // from the kernel, for long
	HasDrained               // all of a generation
	HasFailed                // a generation
	NothingRuns              // no process of the app
	causes
)

// Causes lists them all.
func Causes() []Cause {
	var all []Cause
	for c := GraceStopping; c < causes; c++ {
		all = append(all, c)
	}
	return all
}

func (Said) isReason()                {}
func (Both) isReason()                {}
func (Cause) isReason()               {}
func (Exit) isReason()                {}
func (NotReadyInTime) isReason()      {}
func (InstanceExited) isReason()      {}
func (EndedOtherwise) isReason()      {}
func (StoppedInFlight) isReason()     {}
func (RequestsInFlight) isReason()    {}
func (InFlightWhenCounted) isReason() {}
func (KilledInFlight) isReason()      {}
func (LeftBehind) isReason()          {}
func (StopsWhenIdleOr) isReason()     {}
func (NotSteered) isReason()          {}
func (CheckFailed) isReason()         {}
func (InstancesBeyond) isReason()     {}
func (OlderThan) isReason()           {}
func (TooManyDrain) isReason()        {}
func (RunsTheSame) isReason()         {}
func (RestartPolicy) isReason()       {}
func (TooManyRestarts) isReason()     {}
func (ShutDownBy) isReason()          {}
func (NothingListens) isReason()      {}
func (CaptureRefused) isReason()      {}

// said is no reason where nothing was said.
func said(why string) Reason {
	if why == "" {
		return nil
	}
	return Said(why)
}

// both leaves out what is none.
func both(first, second Reason) Reason {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return Both{first, second}
}
