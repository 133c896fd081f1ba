package machine

import "syscall"

// Exit is how a process ended.
type Exit struct {
	Code   int            // as a shell gives it where the app never ran: 127, 126, or 1
	Signal syscall.Signal // 0 unless a signal ended it
	// Unknown says that somebody else took the status, as happens to a main
	// process that was never grace's child.
	Unknown bool
	NotRun  string // why the app never ran
	// Shortage says that it never ran because something was short that grace needs too: descriptors, processes, memory,
	// room on a disk. That is no fault of the app's, and passes.
	Shortage bool
}

// Status is the exit status as a shell gives it: 128+n for a signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// Failed reports whether the end was anything but exit status 0 or an ordinary
// termination by TERM.
func (e Exit) Failed() bool {
	if e.NotRun != "" || e.Unknown {
		return true
	}
	if e.Signal != 0 {
		return e.Signal != syscall.SIGTERM
	}
	return e.Code != 0
}
