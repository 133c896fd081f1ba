package childproc

import "time"

// Message is what one sd_notify message says; what it does not say is zero.
type Message struct {
	PID              int // the sender's
	Ready            bool
	Stopping         bool
	Reloading        bool
	Watchdog         bool          // a sign of life
	WatchdogTrigger  bool          // the app itself says that it hangs
	WatchdogInterval time.Duration // a new interval for the signs of life
	Status           *string       // one line that is safe to print
	MainPID          int
	Extend           time.Duration // of the current start or stop time
	InFlight         *int
	Errno            *int
}
