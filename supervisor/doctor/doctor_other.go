//go:build !linux

package doctor

import (
	"errors"
	"runtime"
)

var errOnlyLinux = errors.New("cannot do anything on this system: grace needs Linux")

// Examine finds out where it is.
func Examine(Options) Report {
	return newReport([]Finding{{
		Mechanism: "kernel", State: Missing, Means: runtime.GOOS + ": " + errOnlyLinux.Error(), Do: "use Linux", serves: holding,
	}})
}

// Patient always fails.
func Patient(string) error { return errOnlyLinux }
