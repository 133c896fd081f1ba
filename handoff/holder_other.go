//go:build !linux

package handoff

import (
	"errors"
	"net/netip"
)

var errHoldersOnlyLinux = errors.New("finding the process that has an address works only on Linux")

func inetHolding(string, netip.AddrPort, bool) (map[uint64]int, error) {
	return nil, errHoldersOnlyLinux
}

func unixHolding(string) (map[uint64]int, error) { return nil, errHoldersOnlyLinux }

func holders(map[uint64]int) ([]Holder, error) { return nil, errHoldersOnlyLinux }
