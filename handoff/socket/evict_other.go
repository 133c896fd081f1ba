//go:build !linux

package socket

import (
	"fmt"
	"time"
)

// Evict ends the holders of an address in use, only on Linux.
func Evict(e *InUseError, _ time.Duration) error {
	return fmt.Errorf("cannot free %s: ending the process that has an address works only on Linux", e.Address.Addr)
}
