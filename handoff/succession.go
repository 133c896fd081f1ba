package handoff

import (
	"fmt"
	"net/netip"
	"os"
	"time"
)

// Descriptors are those that a process has got from its predecessor: by the numbers that they had there the numbers
// that they have here. What takes one over removes it; the rest stays the caller's.
type Descriptors map[int]int

// Take gives the number here, and removes it. There is no descriptor below zero, neither here nor there.
func (d Descriptors) Take(there int) (int, error) {
	if there < 0 {
		return -1, nil
	}
	here, ok := d[there]
	if !ok {
		return -1, fmt.Errorf("descriptor %d has not come with the state", there)
	}
	delete(d, there)
	return here, nil
}

// ListenerState is what a successor of this process has to know of a Listener. FD stays the Listener's: the successor
// gets a duplicate.
type ListenerState struct {
	Address      Address
	FD           int
	Bound        string
	Inode        uint64
	Device, File uint64 // of the path; 0 if there is none
	Spare        string // the second, hidden name of the path
	Passed       bool   // by grace's service manager, which owns the path
}

// State describes the Listener. No Revive may go on meanwhile.
func (l *Listener) State() ListenerState {
	return ListenerState{
		Address: l.address, FD: l.fd, Bound: l.bound, Inode: l.Inode(),
		Device: l.path.dev, File: l.path.ino, Spare: l.spare, Passed: l.passed,
	}
}

// TakeOverListener continues a predecessor's Listener, which must not be closed there: that would remove its unix path.
func TakeOverListener(s ListenerState, fds Descriptors) (*Listener, error) {
	fd, err := fds.Take(s.FD)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the listener on %s: %w", s.Bound, err)
	}
	l := &Listener{address: s.Address, fd: fd, bound: s.Bound, path: pathID{s.Device, s.File}, spare: s.Spare, passed: s.Passed}
	l.inode.Store(s.Inode)
	return l, nil
}

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
	Member
	FD    int
	Inode uint64
	UID   int
	Asked bool
	State int
}

// BindingState is a socket that was bound and does not listen yet.
type BindingState struct {
	Member
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
	Member
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

// GrantState is what is left of a Grant once its instance is ready. Predecessor is the descriptor of the pipe, and -1
// without one.
type GrantState struct{ Predecessor int }

// State describes the Grant, whose descriptor stays its own.
func (g *Grant) State() GrantState {
	s := GrantState{Predecessor: -1}
	if g.Predecessor == nil {
		return s
	}
	conn, err := g.Predecessor.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { s.Predecessor = int(fd) })
	}
	if err != nil { // it is closed
		s.Predecessor = -1
	}
	return s
}

// TakeOverGrant continues a predecessor's Grant.
func TakeOverGrant(s GrantState, fds Descriptors) (*Grant, error) {
	fd, err := fds.Take(s.Predecessor)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the pipe that tells of an old instance's end: %w", err)
	}
	g := &Grant{Stdin: -1}
	if fd >= 0 {
		g.Predecessor = os.NewFile(uintptr(fd), "pipe to the app")
	}
	return g, nil
}
