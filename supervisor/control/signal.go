package control

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest number that Linux has.
const lastSignal = 64

// ParseSignal knows a signal by its number, or by its name with or without SIG.
func ParseSignal(written string) (sig syscall.Signal, known bool) {
	name := strings.TrimPrefix(strings.ToUpper(written), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, true
	}
	n, err := strconv.Atoi(name)
	return syscall.Signal(n), err == nil && n > 0 && n <= lastSignal
}

// SignalName is TERM, USR1 or the number of a signal without a name.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}
