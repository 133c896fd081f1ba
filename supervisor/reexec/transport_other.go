//go:build !linux

package reexec

import "errors"

var errOnlyLinux = errors.New("cannot replace a running grace: only on Linux")

// Variable is that of the Linux version.
const Variable = "GRACE_SUCCESSION"

// Transport is of no use here.
type Transport struct{ Program string }

// Predecessor is a grace to take over from; there is none here.
type Predecessor struct {
	Document []byte
	Files    map[int]int
}

// Find finds none.
func Find() (*Transport, *Predecessor, error) { return &Transport{}, nil, nil }

// Same is never called, as all that follows.
func (*Predecessor) Same() bool { return false }

// Trial is never called.
func (*Predecessor) Trial() bool { return false }

// Refuse is never called.
func (*Predecessor) Refuse(error) {}

// Accept is never called.
func (*Predecessor) Accept() error { return errOnlyLinux }

// ByAnother always fails.
func (*Transport) ByAnother(Snapshot, func() bool) (int, error) { return 0, errOnlyLinux }

// Try always fails.
func (*Transport) Try(Snapshot) error { return errOnlyLinux }

// InPlace always fails.
func (*Transport) InPlace(Snapshot) error { return errOnlyLinux }
