//go:build !linux

package handoff

import "errors"

var errCountOnlyLinux = errors.New("cannot count connections from outside: this works only on Linux")

// Connections returns an error.
func Connections[L boundSocket]([]int, []L) (int, error) { return 0, errCountOnlyLinux }

// Queued returns an error.
func Queued(boundSocket) (int, error) { return 0, errCountOnlyLinux }

// ConnectionsEach returns an error.
func ConnectionsEach[L boundSocket]([]int, []L) ([]int, error) { return nil, errCountOnlyLinux }

// QueuedEach returns an error.
func QueuedEach[L boundSocket]([]L) ([]int, error) { return nil, errCountOnlyLinux }
