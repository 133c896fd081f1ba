package steering

import (
	"errors"
	"net/netip"
)

// InstanceKey names the instance that a steered socket is of. Instance is the place that a restart fills again, not a pid.
type InstanceKey struct{ Generation, Instance int }

// Decision is what a Steering makes of a bind.
type Decision int

const (
	// NotSteered is for a socket that is none of a Steering's: datagrams, unix, port 0, or one that cannot be steered.
	NotSteered Decision = iota
	// Steered is for a socket that becomes a member of its address's group when it listens.
	Steered
	// Conflict is for an address that another socket of the same instance, or of a stranger, has: the socket was
	// left alone, so that the kernel answers as it would without grace. And for one where the kernel would give it
	// clients of the selected generation, which listens on a less specific address.
	Conflict
)

func (d Decision) String() string {
	return [...]string{"not steered", "steered", "conflict"}[d]
}

// SteeredSocket is a listening socket that a Steering keeps.
type SteeredSocket struct {
	InstanceKey
	Bound netip.AddrPort // of a TCP socket
	Path  string         // of a unix socket, as declared
	Inode uint64
}

// At is where the socket listens.
func (s SteeredSocket) At() string {
	if s.Path != "" {
		return s.Path
	}
	return s.Bound.String()
}

// SteeredQueue is what waits to be accepted by one generation at one address.
type SteeredQueue struct {
	Bound  netip.AddrPort // of TCP sockets
	Path   string         // of unix sockets
	Length int
}

// ErrNotSteered says that a listen is none of a Steering's, and is to go on as if there were none.
var ErrNotSteered = errors.New("the socket is not steered")
