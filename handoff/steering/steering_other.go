//go:build !linux

package steering

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/gracerun/grace/handoff/socket"
)

// Steering chooses which generation gets new connections, only on Linux.
type Steering struct{}

// NewSteering returns an error.
func NewSteering(func(InstanceKey, uint64) bool) (*Steering, error) {
	return nil, errors.New("cannot steer connections: choosing the socket that gets them works only on Linux")
}

// Bind is never called: there is no Steering. The same is true of all other methods.
func (*Steering) Bind(InstanceKey, int, []byte) (Decision, error) {
	return NotSteered, errors.ErrUnsupported
}

// NamesPort is never asked.
func NamesPort([]byte) bool { return false }

// Listen is never called.
func (*Steering) Listen(InstanceKey, int, int) error { return errors.ErrUnsupported }

// Make is never called.
func (*Steering) Make(InstanceKey, socket.Address) (int, error) { return -1, errors.ErrUnsupported }

// Take is never called.
func (*Steering) Take(InstanceKey, int, []byte) (int, error) { return -1, errors.ErrUnsupported }

// Cutover is never called.
func (*Steering) Cutover(int) ([]string, error) { return nil, errors.ErrUnsupported }

// Declare is never called.
func (*Steering) Declare(string) {}

// Declared is never called.
func (*Steering) Declared(string) bool { return false }

// BindPath is never called.
func (*Steering) BindPath(InstanceKey, int, string, uint32) (bool, error) {
	return false, errors.ErrUnsupported
}

// TakePath is never called.
func (*Steering) TakePath(InstanceKey, int, string) (int, error) { return -1, errors.ErrUnsupported }

// Awaited is never called.
func (*Steering) Awaited(int) (bool, error) { return false, errors.ErrUnsupported }

// Keeps is never called.
func (*Steering) Keeps(string) bool { return false }

// Accepted is never called.
func (*Steering) Accepted(int, []int) (int, error) { return 0, errors.ErrUnsupported }

// Probe is never called.
func (*Steering) Probe(uint16, InstanceKey) error { return errors.ErrUnsupported }

// Dial is never called.
func (*Steering) Dial(context.Context, InstanceKey, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// Own is never called.
func (*Steering) Own(InstanceKey, *socket.Listener) (*socket.Listener, error) {
	return nil, errors.ErrUnsupported
}

// Fresh is never called.
func (*Steering) Fresh(InstanceKey, []byte) (int, error) { return -1, errors.ErrUnsupported }

// EndProbe is never called.
func (*Steering) EndProbe(uint16) error { return errors.ErrUnsupported }

// Vacate is never called.
func (*Steering) Vacate(InstanceKey) error { return errors.ErrUnsupported }

// TurnAway is never called.
func (*Steering) TurnAway() error { return errors.ErrUnsupported }

// LetGo is never called.
func (*Steering) LetGo(int) error { return errors.ErrUnsupported }

// Queues is never called.
func (*Steering) Queues(int) []SteeredQueue { return nil }

// Forget is never called.
func (*Steering) Forget(...uint64) error { return errors.ErrUnsupported }

// Retire is never called.
func (*Steering) Retire(InstanceKey) error { return errors.ErrUnsupported }

// Awaits is never called.
func (*Steering) Awaits(uint64) bool { return false }

// Addresses is never called.
func (*Steering) Addresses(int) []netip.AddrPort { return nil }

// Places is never called.
func (*Steering) Places(int) []string { return nil }

// Sockets is never called.
func (*Steering) Sockets(int) []SteeredSocket { return nil }

// Queued is never called.
func (*Steering) Queued(int) (int, error) { return 0, errors.ErrUnsupported }

// Wait is never called.
func (*Steering) Wait() (SteeredSocket, error) { return SteeredSocket{}, errors.ErrUnsupported }

// Suspend is never called.
func (*Steering) Suspend() (SteeringState, error) { return SteeringState{}, errors.ErrUnsupported }

// Resume is never called.
func (*Steering) Resume() {}

// TakeOverSteering returns an error.
func TakeOverSteering(SteeringState, socket.Descriptors, func(InstanceKey, uint64) bool) (*Steering, error) {
	return nil, errors.New("cannot take over the steering: it works only on Linux")
}

// Close does nothing.
func (*Steering) Close() error { return nil }

// Ready is never called.
func (*Steering) Ready(InstanceKey) {}

// Left always answers no.
func (*Steering) Left(InstanceKey, int, []byte) bool { return false }
