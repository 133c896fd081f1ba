//go:build !linux

package control

import (
	"errors"
	"net"
)

var errOnlyLinux = errors.New("the control socket works only on Linux")

// Socket is a grace's control socket.
type Socket struct{ Name, Path string }

// Open works only on Linux.
func Open(string) (*Socket, error) { return nil, errOnlyLinux }

// Adopt works only on Linux.
func Adopt(_ string, _, _ int) (*Socket, error) { return nil, errOnlyLinux }

// Descriptors are none.
func (s *Socket) Descriptors() (listener, lock int) { return -1, -1 }

// Listener works only on Linux.
func (s *Socket) Listener() (*net.UnixListener, error) { return nil, errOnlyLinux }

// There is true: nothing can be done.
func (s *Socket) There() bool { return true }

// Renew works only on Linux.
func (s *Socket) Renew() (*Socket, error) { return nil, errOnlyLinux }

// Leave does nothing.
func (s *Socket) Leave() error { return nil }

// Close does nothing.
func (s *Socket) Close() error { return nil }
