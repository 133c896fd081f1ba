package machine

import (
	"syscall"
	"time"
)

// Restart says which ends of an app in service are followed by a new start.
type Restart string

// The restart policies.
const (
	RestartOnFailure Restart = "on-failure"
	RestartAlways    Restart = "always"
	RestartNever     Restart = "never"
)

func (r Restart) wants(failed bool) bool {
	return r == RestartAlways || r == RestartOnFailure && failed
}

// Policy is what the machine decides by.
type Policy struct {
	Instances    int
	MaxDraining  int
	Restart      Restart
	RestartLimit RestartLimit
	StopSignal   syscall.Signal
	StopGroup    bool // it goes to the whole process group
	ReadyTimeout time.Duration
	DrainTimeout time.Duration
	DrainDelay   time.Duration
	Watchdog     time.Duration // 0: none
	// Shared says that all generations have one of these sockets in common.
	Shared bool
	// Steered says that each generation has sockets of its own, and new
	// connections are sent to one of them.
	Steered bool
	// Settle is how long a replaced generation that is Steered is kept to take over
	// again.
	Settle time.Duration
	// Empty is how long it may then finish what it has before it is told to stop.
	Empty time.Duration
	// Farewell is how long the clients of kept-alive connections have to leave before a replaced generation is told to
	// stop; 0: they are not asked to.
	Farewell time.Duration
	// Canary is what share of the new connections a new generation gets at first, step by step; nil: all at once.
	Canary []CanaryStep
	// Examined says that a generation which shares has to pass a check.
	Examined bool
	// MaxSurge is how many instances may run beside the old ones during an upgrade.
	MaxSurge Surge
	// MaxAge is how long an instance serves before a fresh one takes its place; 0: for ever.
	MaxAge time.Duration
	// OneInstance is why there cannot be more; nil if there can.
	OneInstance Reason
	// KeepWarm is how long a replaced generation that is Steered stays whole, to take over again when that is asked for.
	KeepWarm time.Duration
	// NoUpgrade is why HUP is refused; nil if it is not.
	NoUpgrade Reason
	// NoRelease says that the app would end with grace whatever that does.
	NoRelease bool
	// ReleaseStatus is grace's exit status where the app was released.
	ReleaseStatus int
	// Held says that grace holds sockets for the app.
	Held bool
}

// emptyTime is how long a generation may take to become quiet. There is one DrainTimeout for
// emptying and draining, of which the app keeps a quarter to end in.
func (p Policy) emptyTime() time.Duration {
	limit := p.DrainTimeout - p.DrainTimeout/4 - p.holdTime()
	if p.Shared {
		limit = min(limit, besideShared)
	}
	return limit
}

// KillAfter is what an app has at least between its stop signal and KILL.
func (p Policy) KillAfter() time.Duration {
	if !p.Steered {
		return p.DrainTimeout
	}
	return p.DrainTimeout - p.emptyTime() - p.holdTime()
}

const (
	FirstBackoff  = 100 * time.Millisecond
	longBackoff   = 30 * time.Second
	shortageRetry = time.Second
	healthyAfter  = time.Minute
	killPatience  = 10 * time.Second
	// replacementPause is how long an instance at least serves that has replaced an unfit one, or could not be replaced itself.
	replacementPause = time.Minute
	heldUp           = time.Second // by so much a timer is late where grace itself was frozen
	slowStart        = 2 * time.Second
	firstProgress    = time.Second
	// announcePatience is for a grace process that has just started, on a busy machine: it loads programs into the kernel.
	announcePatience = 10 * time.Second
	holdPatience     = 2 * time.Second
	steerPatience    = 30 * time.Second // looks into the kernel take seconds at most
	// stopPatience is short, as nothing depends on it: the app is told to stop when nothing comes any more.
	stopPatience = 5 * time.Second
	NextProgress = 5 * time.Second
	// whileAllWait is time for the requests of most apps: what takes longer than that is the app's to finish.
	whileAllWait = 5 * time.Second
	// besideShared is longer than a handshake that has begun is waited for.
	besideShared = 5 * time.Second
)

// backoffAfter doubles with each failure in a row; the shell adds the jitter.
func backoffAfter(failures int) time.Duration {
	d := FirstBackoff
	for range failures {
		d = min(2*d, longBackoff)
	}
	return d
}

// The exit statuses that are grace's own; any other is the app's.
const (
	StatusFailure  = 1
	statusNotReady = 124
)
