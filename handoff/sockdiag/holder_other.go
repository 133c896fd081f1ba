//go:build !linux

package sockdiag

import (
	"errors"
	"net/netip"
)

var errHoldersOnlyLinux = errors.New("finding the process that has an address works only on Linux")

// InetHolding returns an error.
func InetHolding(string, netip.AddrPort, bool) (map[uint64]int, error) {
	return nil, errHoldersOnlyLinux
}

// UnixHolding returns an error.
func UnixHolding(string) (map[uint64]int, error) { return nil, errHoldersOnlyLinux }

// Holders returns an error.
func Holders(map[uint64]int) ([]Holder, error) { return nil, errHoldersOnlyLinux }
