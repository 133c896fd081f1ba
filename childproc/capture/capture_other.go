//go:build !linux

package capture

import (
	"errors"
	"syscall"
)

var errOnlyLinux = errors.New("cannot capture an app's listeners: only on Linux")

// NeedsNoNewPrivs is of no use here.
func NeedsNoNewPrivs() bool { return false }

// Listener receives the calls of one app; there are none here.
type Listener struct{}

// NewListener always fails.
func NewListener(int) (*Listener, error) { return nil, errOnlyLinux }

// Receive always fails.
func Receive(int) (*Listener, error) { return nil, errOnlyLinux }

// Next always fails.
func (*Listener) Next() (Call, error) { return Call{}, errOnlyLinux }

// FD is no descriptor.
func (*Listener) FD() int { return -1 }

// Suspend does nothing.
func (*Listener) Suspend() error { return nil }

// Resume does nothing.
func (*Listener) Resume() error { return nil }

// Close does nothing.
func (*Listener) Close() error { return nil }

// Call is one bind or listen of an app's thread; there are none here.
type Call struct{}

// Syscall says nothing.
func (Call) Syscall() Syscall { return Bind }

// PID says nothing.
func (Call) PID() int { return 0 }

// FD says nothing.
func (Call) FD() int { return -1 }

// Backlog says nothing.
func (Call) Backlog() int { return 0 }

// Addr always fails.
func (Call) Addr() ([]byte, error) { return nil, errOnlyLinux }

// Path always fails.
func (Call) Path() (string, error) { return "", errOnlyLinux }

// Umask always fails.
func (Call) Umask() (uint32, error) { return 0, errOnlyLinux }

// Valid is always false.
func (Call) Valid() bool { return false }

// Duplicate always fails.
func (Call) Duplicate() (int, error) { return -1, errOnlyLinux }

// Protocol always fails.
func (Call) Protocol() (string, error) { return "", errOnlyLinux }

// Inode always fails.
func (Call) Inode() (uint64, error) { return 0, errOnlyLinux }

// Continue always fails.
func (Call) Continue() error { return errOnlyLinux }

// Return always fails.
func (Call) Return(syscall.Errno) error { return errOnlyLinux }

// Install always fails.
func (Call) Install(int) error { return errOnlyLinux }
