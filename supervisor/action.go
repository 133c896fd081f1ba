package supervisor

import (
	"syscall"
	"time"
)

// action is one thing for the shell to do; the types below are all there are.
type action interface{ isAction() }

type (
	// prepare resolves a generation's command and runs its check. It is
	// answered by prepared or prepareFailed, exactly once.
	prepare struct {
		generation int
		command    []string // nil: the one that grace was started with
		again      *recipe  // to be run once more as it was, instead
		current    *recipe  // what serves; nil: nothing
	}
	// abandon cuts a prepare short; its answer still comes.
	abandon struct{ generation int }
	// start starts one process. It is answered by started or startFailed; the
	// first is followed by one exited and one emptied.
	start struct {
		generation int
		instance   int
		slot       int
		// mustNotify says that the app's own READY=1 is needed too.
		mustNotify bool
		// predecessor is the generation that this one replaces, or 0.
		predecessor int
	}
	// dismiss ends the wait for a started instance's readiness.
	dismiss struct{ instance int }
	// tell sends a signal to an instance's main process.
	tell struct {
		instance int
		signal   syscall.Signal
	}
	// tellGroup sends a signal to an instance's whole process group.
	tellGroup struct {
		instance int
		signal   syscall.Signal
	}
	// tellRest sends a signal to what an ended instance has left behind, but for who
	// was told already. It is answered by left, unless nothing is left.
	tellRest struct {
		instance int
		signal   syscall.Signal
		told     bool // the process group was
		crashed  bool // nobody has told the main process
	}
	// kill ends all processes of an instance's groups, and what ended ones have left
	// behind.
	kill struct{ instance int }
	// reap gives an ended process's pid back.
	reap struct {
		instance int
		pid      int
	}
	// release drops what the shell keeps for an instance.
	release struct{ instance int }
	// retire drops what the shell keeps for a generation.
	retire struct{ generation int }
	// discard drops what retire has left of a generation: the executable, which a rollback could want.
	discard struct{ generation int }
	// count asks for the connections in flight of a generation's processes.
	count struct {
		generation int
		pids       []int
	}
	// steer sends new connections to a generation, from now on.
	steer struct{ generation int }
	// turnAway keeps new connections from all sockets that generations have of their own,
	// for good: they wait, and are refused once the sockets close.
	turnAway struct{}
	// letGo leaves a generation's sockets to its app alone: who comes is refused as soon
	// as that has closed them.
	letGo struct{ generation int }
	// observe looks at a generation's connections until they are idle and none waits
	// to be accepted; after some time the second is enough. It is answered by quieted,
	// unless the generation ends first, and awaited may come before.
	observe struct {
		generation int
		pids       []int
		idle       time.Duration // how long idle connections are waited for
	}
	// arm starts a timer, and disarm stops it. A jittered one may be up to half
	// as long again, so that many restarts do not fall together.
	arm struct {
		timer    timer
		after    time.Duration
		jittered bool
	}
	disarm struct{ timer timer }
	// handOver has another grace take over. It is answered by reexecDelayed, reexecFailed
	// or reexeced.
	handOver struct{}
	// answer is for who waits for the result of a request.
	answer struct {
		request int
		result  result
	}
	// finish ends the supervisor with an exit status.
	finish struct{ status int }
	// report is one line of the log.
	report struct {
		level      level
		text       string
		fact       Fact // what has happened, for programs; mostly nothing
		generation int
		instance   int
		pid        int
		took       time.Duration
		within     time.Duration
		why        string
	}
)

func (prepare) isAction()   {}
func (abandon) isAction()   {}
func (start) isAction()     {}
func (dismiss) isAction()   {}
func (tell) isAction()      {}
func (tellGroup) isAction() {}
func (tellRest) isAction()  {}
func (kill) isAction()      {}
func (reap) isAction()      {}
func (release) isAction()   {}
func (retire) isAction()    {}
func (discard) isAction()   {}
func (count) isAction()     {}
func (steer) isAction()     {}
func (turnAway) isAction()  {}
func (letGo) isAction()     {}
func (observe) isAction()   {}
func (arm) isAction()       {}
func (disarm) isAction()    {}
func (handOver) isAction()  {}
func (answer) isAction()    {}
func (finish) isAction()    {}
func (report) isAction()    {}

// level is how much a report matters.
type level int

const (
	debug level = iota
	info
	warn
	failure
)
