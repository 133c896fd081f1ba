//go:build !linux

package sockdiag

import "errors"

var errCountOnlyLinux = errors.New("cannot count connections from outside: this works only on Linux")

// Connections returns an error.
func Connections[L Listener]([]int, []L) (int, error) { return 0, errCountOnlyLinux }

// Queued returns an error.
func Queued(Listener) (int, error) { return 0, errCountOnlyLinux }

// ConnectionsEach returns an error.
func ConnectionsEach[L Listener]([]int, []L) ([]int, error) { return nil, errCountOnlyLinux }

// QueuedEach returns an error.
func QueuedEach[L Listener]([]L) ([]int, error) { return nil, errCountOnlyLinux }
