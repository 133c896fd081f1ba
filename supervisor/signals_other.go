//go:build !linux

package supervisor

// No realtime signals are forwarded here.
const (
	firstRealtime = 1
	lastRealtime  = 0
)
