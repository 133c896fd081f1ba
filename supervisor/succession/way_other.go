//go:build !linux

package succession

import "errors"

var errOnlyLinux = errors.New("cannot replace a running grace: only on Linux")

// Variable is that of the Linux version.
const Variable = "GRACE_SUCCESSION"

// Succession is of no use here.
type Succession struct{ Program string }

// Predecessor is a grace to take over from; there is none here.
type Predecessor struct {
	Document []byte
	Files    map[int]int
}

// Find finds none.
func Find() (*Succession, *Predecessor, error) { return &Succession{}, nil, nil }

// Same is never called, as all that follows.
func (*Predecessor) Same() bool { return false }

// Trial is never called.
func (*Predecessor) Trial() bool { return false }

// Refuse is never called.
func (*Predecessor) Refuse(error) {}

// Accept is never called.
func (*Predecessor) Accept() error { return errOnlyLinux }

// ByAnother always fails.
func (*Succession) ByAnother(Estate, func() bool) (int, error) { return 0, errOnlyLinux }

// Try always fails.
func (*Succession) Try(Estate) error { return errOnlyLinux }

// InPlace always fails.
func (*Succession) InPlace(Estate) error { return errOnlyLinux }
