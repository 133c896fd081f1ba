//go:build !linux

package handoff

import (
	"net/netip"
	"time"
)

// Look returns an error.
func Look([]int, []netip.AddrPort, time.Duration) (Traffic, error) {
	return Traffic{}, errCountOnlyLinux
}
