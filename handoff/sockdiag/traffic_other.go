//go:build !linux

package sockdiag

import (
	"net/netip"
	"time"
)

// Look returns an error.
func Look([]int, []netip.AddrPort, time.Duration) (Traffic, error) {
	return Traffic{}, errCountOnlyLinux
}

// OpenAt returns an error.
func OpenAt([]int, []netip.AddrPort) ([]int, error) { return nil, errCountOnlyLinux }
