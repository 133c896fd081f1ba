package control

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// Protocol is the version of the messages, and the first part of every path: /v1/.
// What a version has is never renamed or removed; answers may gain fields.
const Protocol = 1

// Backend is what a Server asks. Its methods may be called by many goroutines at once.
type Backend interface {
	// Status gives the status at this moment.
	Status(ctx context.Context) (Status, error)
	// Ask begins what is requested, or says why not. The channel is closed after the
	// line with the result. A reader that is slow loses reports, never the result, and
	// holds up nobody. When ctx ends nobody reads any more; what was begun goes on.
	Ask(ctx context.Context, r Request) (<-chan Line, error)
}

// ErrLeaving is what a Backend says that ends, or that another one takes over from: who
// asks once more finds that, or nobody.
var ErrLeaving = errors.New("this grace process is ending or being replaced (try again)")

// Operation is what a request asks for.
type Operation string

// The operations; each has a path of its own name.
const (
	Upgrade  Operation = "upgrade"
	Rollback Operation = "rollback"
	Stop     Operation = "stop"
	Reexec   Operation = "reexec"
	Release  Operation = "release"
	Signal   Operation = "signal"
	Scale    Operation = "scale"
	Promote  Operation = "promote"
)

// Request asks for one operation.
type Request struct {
	Do Operation
	// Command is what an upgrade is to run from now on; nil: the same again.
	Command []string
	// Canary is what share of the new connections an upgraded generation gets at first, as in 5%:1m,25%:5m; "": as grace was told.
	Canary string
	// MaxSurge is how many instances an upgrade may start beside the old ones, as in 1, 25% or 0; "": as grace was told.
	MaxSurge string
	// Instances is how many there are to be after a scale.
	Instances int
	// Fully promotes a generation at once, and not to its next share.
	Fully bool
	// Now makes a stop an immediate one.
	Now bool
	// Signal is what the app is to get.
	Signal syscall.Signal
}

// Line is one line of an answer: a report, or, as the last one, the result.
type Line struct {
	Report *Report `json:"report,omitempty"`
	Result *Result `json:"result,omitempty"`
}

// Report is a line of grace's log, while somebody waits for a result.
type Report struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Text       string    `json:"text"`
	Fact       string    `json:"fact,omitempty"` // what has happened, for programs
	Generation int       `json:"generation,omitempty"`
	Instance   int       `json:"instance,omitempty"`
	PID        int       `json:"pid,omitempty"`
	Took       float64   `json:"took,omitempty"`   // seconds that are over
	Within     float64   `json:"within,omitempty"` // seconds that it may take
	Why        string    `json:"why,omitempty"`
}

// Outcome is how a request ended.
type Outcome string

// The outcomes.
const (
	Upgraded   Outcome = "upgraded"   // the new generation serves
	Failed     Outcome = "failed"     // it does not, and the old one was not touched
	Undone     Outcome = "undone"     // it did, and failed while the old one could take over again
	Superseded Outcome = "superseded" // a later request took its place
	Refused    Outcome = "refused"    // nothing was begun
	Stopped    Outcome = "stopped"    // the app has ended, and grace ends
	Released   Outcome = "released"   // the app runs on, and grace ends
	Reexeced   Outcome = "reexeced"   // another grace process has taken over
	Signalled  Outcome = "signalled"  // the current generation was sent a signal
	Scaled     Outcome = "scaled"     // as many instances serve as was asked for
	Promoted   Outcome = "promoted"   // the generation has a larger share of the new connections
)

// Result ends an answer.
type Result struct {
	Outcome    Outcome `json:"outcome"`
	Generation int     `json:"generation,omitempty"` // that it is about
	Serving    int     `json:"serving"`              // that serves now; 0: none
	Took       float64 `json:"took"`                 // seconds
	Why        string  `json:"why,omitempty"`
	Output     string  `json:"output,omitempty"` // where the candidate's output went
	// Unchanged: the generation runs the same file, in the same directory, with the same arguments as the one before.
	Unchanged bool `json:"unchanged,omitempty"`
	// Instances is how many there are to be, after a scale.
	Instances int `json:"instances,omitempty"`
	// Share is the generation's part of the new connections, from 0 to 1, after a promotion.
	Share float64 `json:"share,omitempty"`
}

// Status describes a grace process at one moment. It has no value of the environment.
type Status struct {
	Version     int             `json:"version"` // Protocol
	Grace       string          `json:"grace"`   // the program's version
	Name        string          `json:"name"`
	PID         int             `json:"pid"`
	Started     time.Time       `json:"started"`
	State       string          `json:"state"`     // starting, serving, upgrading, stopping
	Current     int             `json:"current"`   // generation; 0: none
	Instances   int             `json:"instances"` // that there are to be
	Generations []Generation    `json:"generations"`
	Listeners   []Listener      `json:"listeners"`
	Upgrades    []UpgradeRecord `json:"upgrades"` // the newest last, at most 10
	Restarts    int             `json:"restarts"`
	Crashes     int             `json:"crashes"`
	Farewell    *Farewell       `json:"farewell,omitempty"`
}

// Farewell says whether clients are asked to close kept-alive connections before the app closes them.
type Farewell struct {
	State  string  `json:"state"`            // loading, on, off, unavailable
	Within float64 `json:"within,omitempty"` // seconds that clients have
	Keep   float64 `json:"keep,omitempty"`   // seconds that silent connections stay open when the app has closed them
	Why    string  `json:"why,omitempty"`    // unavailable: what is missing
	// Generations are those whose clients were asked, also an ended one as long as its connections are kept.
	Generations []Closing `json:"generations,omitempty"`
}

// Closing is where the connections of a generation are whose clients were asked to close them.
type Closing struct {
	Generation int `json:"generation"`
	Left       int `json:"left"`   // closed since
	Open       int `json:"open"`   // the sum of busy, silent, kept and untold
	Busy       int `json:"busy"`   // used since, or in the second before
	Silent     int `json:"silent"` // not used
	Held       int `json:"held"`   // of the silent: what their clients send waits
	Kept       int `json:"kept"`   // closed by the app: their last request goes to the current generation
	Untold     int `json:"untold"` // their clients cannot be asked
}

// Generation is the instances that were started from one command.
type Generation struct {
	Number      int        `json:"number"`
	Batch       bool       `json:"batch,omitempty"` // only some instances, which come or go apart from the rest
	Share       float64    `json:"share,omitempty"` // of the new connections, from 0 to 1, while it is sharing
	Phase       string     `json:"phase"`           // preparing, candidate, sharing, current, settling, warm, emptying, closing, draining
	Since       time.Time  `json:"since"`           // of the phase
	Until       *time.Time `json:"until,omitempty"` // the phase ends then at the latest; absent: it has no end
	Born        time.Time  `json:"born"`
	Command     []string   `json:"command"`
	Executable  string     `json:"executable,omitempty"`
	Dir         string     `json:"dir,omitempty"`
	Connections *int       `json:"connections,omitempty"` // in flight; absent: cannot be counted
	Instances   []Instance `json:"instances"`
}

// Instance is one process of the app, with those below it.
type Instance struct {
	ID       int       `json:"id"`
	Slot     int       `json:"slot"`
	PID      int       `json:"pid,omitempty"`
	Phase    string    `json:"phase"`
	Since    time.Time `json:"since"`
	Requests *int      `json:"requests,omitempty"` // in flight, as the app says
	Says     string    `json:"says,omitempty"`     // STATUS= of the app
	Rest     []Remnant `json:"rest,omitempty"`     // what its main process has left behind at its end
	Memory   int64     `json:"memory,omitempty"`   // bytes, resident, of the whole tree
	CPU      float64   `json:"cpu,omitempty"`      // seconds, of the whole tree
	// Uncaptured says that the capture has ended with a grace process that was killed: bind and listen of the instance fail.
	Uncaptured bool `json:"uncaptured,omitempty"`
}

// Remnant is a process that was left behind.
type Remnant struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// Listener is a socket of the app's.
type Listener struct {
	Name        string `json:"name,omitempty"`
	Network     string `json:"network"`
	Address     string `json:"address"`
	Kind        string `json:"kind"`                  // held, steered, captured
	Generation  int    `json:"generation,omitempty"`  // captured: whose
	Queue       *int   `json:"queue,omitempty"`       // not yet accepted; absent: cannot be seen
	Connections *int   `json:"connections,omitempty"` // in flight; absent: cannot be counted
}

// UpgradeRecord is an upgrade that is over.
type UpgradeRecord struct {
	Generation int       `json:"generation"`
	From       int       `json:"from"`
	Began      time.Time `json:"began"`
	Took       float64   `json:"took"` // seconds
	Outcome    Outcome   `json:"outcome"`
	Why        string    `json:"why,omitempty"`
	Command    []string  `json:"command"`
	Rollback   bool      `json:"rollback,omitempty"`
	Unchanged  bool      `json:"unchanged,omitempty"` // as in a Result
}
