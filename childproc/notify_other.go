//go:build !linux

package childproc

import "errors"

var errNoNotify = errors.New("cannot receive the app's notifications: only on Linux, where their sender is known")

// NotifySocket is the supervisor's end of NOTIFY_SOCKET; there is none here.
type NotifySocket struct{}

// OpenNotify always fails.
func OpenNotify(string, int, int) (*NotifySocket, error) { return nil, errNoNotify }

// TakeOverNotify always fails.
func TakeOverNotify(NotifyState, map[int]int) (*NotifySocket, error) { return nil, errNoNotify }

// State always fails.
func (*NotifySocket) State() (NotifyState, error) { return NotifyState{}, errNoNotify }

// Suspend does nothing.
func (*NotifySocket) Suspend() error { return nil }

// Resume does nothing.
func (*NotifySocket) Resume() error { return nil }

// Path is empty.
func (*NotifySocket) Path() string { return "" }

// There is true: nothing can be done.
func (*NotifySocket) There() bool { return true }

// Renew always fails.
func (*NotifySocket) Renew(int, int) error { return errNoNotify }

// Receive always fails.
func (*NotifySocket) Receive(func(pid int) bool) (Message, error) { return Message{}, errNoNotify }

// Refused counts nothing.
func (*NotifySocket) Refused() (count, pid int) { return 0, 0 }

// Close does nothing.
func (*NotifySocket) Close() error { return nil }
