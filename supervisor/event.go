package supervisor

import (
	"syscall"
	"time"
)

// event is one fact from outside; the types below are all there are.
type event interface{ isEvent() }

type (
	// upgradeRequested asks for a new generation: of the command, or of what the
	// current one runs if that is nil. A request that has a number is answered.
	upgradeRequested struct {
		request  int
		command  []string
		rollback bool // of what ran before the current one
	}
	// stopRequested asks for the end of everything; as a signal that comes again after
	// a while, for an immediate one.
	stopRequested struct{ request int }
	// killRequested asks for an immediate end.
	killRequested struct{ request int }
	// reexecRequested asks for another grace in place of this one.
	reexecRequested struct{ request int }
	// reexecDelayed says that something has come in between that cannot travel.
	reexecDelayed struct{}
	// reexecFailed says that there is no other grace.
	reexecFailed struct{ why string }
	// reexeced says that there is one, which waits for the end of this one.
	reexeced struct{ pid int }
	// signalReceived is a signal that is the app's business.
	signalReceived struct{ signal syscall.Signal }

	// prepared answers a prepare action that found all that a start needs.
	prepared struct {
		generation int
		recipe     recipe
	}
	// prepareFailed answers one that did not.
	prepareFailed struct {
		generation int
		why        string
		status     int
	}

	// started and startFailed answer a start action.
	started struct {
		instance int
		pid      int
	}
	startFailed struct {
		instance int
		exit     Exit
	}
	// touched says that an instance was seen waiting on a held socket.
	touched struct{ instance int }
	// opened says that an instance listens on a socket of its own.
	opened struct{ instance int }
	// unreadied says why an instance is not ready yet.
	unreadied struct {
		instance int
		why      string
	}
	// obstructed says what was seen to keep an instance from serving; nothing, when it is over.
	obstructed struct {
		instance int
		why      string
	}
	// readied says that an instance serves.
	readied struct{ instance int }
	// notified says that the app has sent READY=1.
	notified struct{ instance int }
	// moved says that an instance's main process is another one now, which is
	// followed from here on.
	moved struct {
		instance int
		pid      int
	}
	// exited says that a process has ended, and emptied, which always follows,
	// that nothing of its process group is left.
	exited struct {
		instance int
		pid      int
		exit     Exit
	}
	emptied struct {
		instance int
		pid      int
	}

	// left says what an ended instance has left behind, after a tellRest action.
	left struct {
		instance int
		rest     []remnant
	}

	// extended asks for more time to start or to drain.
	extended struct {
		instance int
		by       time.Duration
	}
	// pinged is a sign of life for the watchdog.
	pinged struct{ instance int }
	// withdrawn says that the app has sent STOPPING=1: it ends, whether or not it
	// was told to.
	withdrawn struct{ instance int }
	// tallied is how many requests an app says are in flight.
	tallied struct {
		instance int
		inFlight int
	}
	// described is what an app says about itself.
	described struct {
		instance int
		text     string
	}

	// counted answers a count action.
	counted struct {
		generation int
		inFlight   int
		why        string // why it could not be counted
	}
	// quieted answers an observe action: nothing waits for the generation any more, and nothing goes on in these
	// processes.
	quieted struct {
		generation int
		pids       []int
	}
	// awaited says, as often as it is seen during an observe action, that connections wait where an instance has left
	// its socket.
	awaited struct{ generation int }
	// revived says that a held listener had been shut down by an app.
	revived struct {
		listener string
		why      string // why it could not be revived
		// replaced says that it is another socket now, which the generation in
		// service does not have.
		replaced bool
	}
	// uncaptured says that the app's sockets cannot be captured here, and why.
	uncaptured struct{ why string }
	// closed says that an app has shut down a captured listener.
	closed struct {
		generation int
		address    string
	}
	// noticed is something that went wrong beside the course of things.
	noticed struct{ text, why string }
	// fellBack says that an instance cannot be looked at.
	fellBack struct {
		instance int
		why      string
	}
	// timerExpired comes from an arm action. A timer that was armed for
	// something that is over is known by its number.
	timerExpired struct{ timer timer }
)

func (upgradeRequested) isEvent() {}
func (stopRequested) isEvent()    {}
func (killRequested) isEvent()    {}
func (reexecRequested) isEvent()  {}
func (reexecDelayed) isEvent()    {}
func (reexecFailed) isEvent()     {}
func (reexeced) isEvent()         {}
func (signalReceived) isEvent()   {}
func (prepared) isEvent()         {}
func (prepareFailed) isEvent()    {}
func (started) isEvent()          {}
func (startFailed) isEvent()      {}
func (touched) isEvent()          {}
func (opened) isEvent()           {}
func (unreadied) isEvent()        {}
func (obstructed) isEvent()       {}
func (readied) isEvent()          {}
func (notified) isEvent()         {}
func (moved) isEvent()            {}
func (exited) isEvent()           {}
func (emptied) isEvent()          {}
func (left) isEvent()             {}
func (extended) isEvent()         {}
func (pinged) isEvent()           {}
func (withdrawn) isEvent()        {}
func (tallied) isEvent()          {}
func (described) isEvent()        {}
func (counted) isEvent()          {}
func (quieted) isEvent()          {}
func (awaited) isEvent()          {}
func (revived) isEvent()          {}
func (uncaptured) isEvent()       {}
func (closed) isEvent()           {}
func (noticed) isEvent()          {}
func (fellBack) isEvent()         {}
func (timerExpired) isEvent()     {}

// instanceEvent is an event in one instance's life.
type instanceEvent interface {
	event
	of() int
}

func (e started) of() int     { return e.instance }
func (e startFailed) of() int { return e.instance }
func (e touched) of() int     { return e.instance }
func (e opened) of() int      { return e.instance }
func (e unreadied) of() int   { return e.instance }
func (e obstructed) of() int  { return e.instance }
func (e readied) of() int     { return e.instance }
func (e notified) of() int    { return e.instance }
func (e moved) of() int       { return e.instance }
func (e exited) of() int      { return e.instance }
func (e emptied) of() int     { return e.instance }
func (e left) of() int        { return e.instance }
func (e extended) of() int    { return e.instance }
func (e pinged) of() int      { return e.instance }
func (e withdrawn) of() int   { return e.instance }
func (e tallied) of() int     { return e.instance }
func (e described) of() int   { return e.instance }
func (e fellBack) of() int    { return e.instance }
