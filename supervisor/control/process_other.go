//go:build !linux

package control

import "context"

// Process is the grace behind a control socket.
type Process struct{}

// Watch works only on Linux.
func Watch(context.Context, string) (*Process, error) { return nil, errOnlyLinux }

// Wait works only on Linux.
func (p *Process) Wait(context.Context) error { return errOnlyLinux }

// Close does nothing.
func (p *Process) Close() error { return nil }
