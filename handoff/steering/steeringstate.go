package steering

import (
	"net/netip"
	"time"
)

// SteeringState is what a successor of this process has to know of a Steering. The descriptors in it stay the
// Steering's: the successor gets duplicates.
type SteeringState struct {
	// Watch is the epoll set that tells which sockets were shut down, and in which order: nobody knows it otherwise,
	// and the kernel's numbers depend on it. What happens during the handover waits there.
	Watch  int
	Groups []GroupState
	Bound  []BindingState
	Made   map[string]netip.AddrPort
	Left   []SteeredSocket
	Paths  []PathState
}

// GroupState is one address with its sockets, in the kernel's order.
type GroupState struct {
	Site     SiteState
	Selected int // the generation
	Replaced time.Time
	Begun    []HandshakeState
	Counted  bool // Begun was read
	Members  []SeatState
}

// SiteState is what the sockets of a group have in common.
type SiteState struct {
	At     netip.AddrPort
	V6Only bool
	Device int
}

// HandshakeState is a connection that had not been established when its generation was replaced.
type HandshakeState struct {
	Local  netip.Addr
	Remote netip.AddrPort
}

// SeatState is one listening socket.
type SeatState struct {
	InstanceKey
	FD    int
	Inode uint64
	UID   int
	Asked bool
	State int
}

// BindingState is a socket that was bound and does not listen yet.
type BindingState struct {
	InstanceKey
	Site  SiteState
	Inode uint64
	UID   int
	Asked bool
	Reuse bool
	Shut  bool
}

// PathState is one declared path with its unix sockets.
type PathState struct {
	At       string
	Selected int // the generation
	Replaced time.Time
	Members  []PathSeatState
	Hidden   []PathSeatState // those that do not listen yet, and have no descriptor here
}

// PathSeatState is one unix socket.
type PathSeatState struct {
	InstanceKey
	FD        int
	Inode     uint64
	Bound     string
	File      string // its name now, of the file with the numbers that follow
	Device    uint64
	FileInode uint64
	Seen      int64 // ns since 1970: when the file at the path was last changed before this one was bound
	State     int
}

// FDs are the descriptors that the successor needs.
func (s SteeringState) FDs() []int {
	fds := []int{s.Watch}
	for _, p := range s.Paths {
		for _, seat := range p.Members {
			fds = append(fds, seat.FD)
		}
	}
	for _, g := range s.Groups {
		for _, seat := range g.Members {
			fds = append(fds, seat.FD)
		}
	}
	return fds
}
