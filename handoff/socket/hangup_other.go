//go:build !linux

package socket

import "errors"

// HangupWatch tells when an app has shut down a held listener, only on Linux.
type HangupWatch struct{}

// NewHangupWatch returns an error.
func NewHangupWatch([]*Listener) (*HangupWatch, error) {
	return nil, errors.New("cannot watch listeners: seeing that an app has shut one down works only on Linux")
}

// Wait is never called: there is no watch.
func (*HangupWatch) Wait() (*Listener, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*HangupWatch) Close() error { return nil }
