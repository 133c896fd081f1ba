//go:build !linux

package sockdiag

import (
	"errors"
	"net/netip"
)

// Listening returns an error.
func Listening([]int) (map[uint64]netip.AddrPort, error) { return nil, errors.ErrUnsupported }
