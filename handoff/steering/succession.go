package steering

import (
	"errors"
	"fmt"
	"maps"

	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// Suspend describes the Steering, and holds all its methods up until Resume: from now on the successor alone may read
// which sockets were shut down. A process that has a successor never resumes.
func (s *Steering) Suspend() (SteeringState, error) {
	s.mutex.Lock()
	if err := s.refresh(); err != nil {
		s.mutex.Unlock()
		return SteeringState{}, fmt.Errorf("cannot hand the steering over: %w", err)
	}
	state := SteeringState{Watch: s.epoll, Made: s.made, Left: s.left}
	for _, g := range s.sorted() {
		state.Groups = append(state.Groups, g.describe())
	}
	for _, g := range s.paths {
		state.Paths = append(state.Paths, s.describePath(g))
	}
	for _, b := range s.bound {
		state.Bound = append(state.Bound, BindingState{b.InstanceKey, b.site.describe(), b.inode, b.uid, b.asked, b.reuse, b.shut})
	}
	return state, nil
}

// Resume goes on after Suspend, where there came no successor.
func (s *Steering) Resume() { s.mutex.Unlock() }

func (p groupKey) describe() SiteState { return SiteState{p.at, p.v6Only, p.device} }

func (p SiteState) site() groupKey { return groupKey{p.At, p.V6Only, p.Device} }

func (g *group) describe() GroupState {
	state := GroupState{Site: g.site.describe(), Selected: g.selected, Replaced: g.left, Counted: g.begun != nil}
	for h := range g.begun {
		state.Begun = append(state.Begun, HandshakeState{h.local, h.remote})
	}
	for _, s := range g.members {
		state.Members = append(state.Members, SeatState{s.InstanceKey, s.fd, s.inode, s.uid, s.asked, int(s.state)})
	}
	return state
}

// TakeOverSteering continues a predecessor's Steering, which is suspended there. It changes nothing in the kernel, and
// so may be closed again without harm, until another method is called, which has to wait until the predecessor has
// ended. Probes are not taken over: who made them has gone.
func TakeOverSteering(state SteeringState, fds socket.Descriptors, live func(m InstanceKey, inode uint64) bool) (*Steering, error) {
	s, err := NewSteering(live)
	if err != nil {
		return nil, err
	}
	if err := s.takeOver(state, fds); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot take over the steering: %w", err), s.Close())
	}
	return s, nil
}

func (s *Steering) takeOver(state SteeringState, fds socket.Descriptors) error {
	watch, err := fds.Take(state.Watch)
	if err != nil {
		return err
	}
	if err := unix.Close(s.epoll); err != nil {
		return err
	}
	s.epoll, s.left = watch, state.Left
	maps.Copy(s.made, state.Made)
	for _, b := range state.Bound {
		s.bind(&binding{b.InstanceKey, b.Site.site(), b.Inode, b.UID, b.Asked, b.Reuse, b.Shut})
	}
	for _, g := range state.Groups {
		if err := s.takeGroup(g, fds); err != nil {
			return err
		}
	}
	for _, p := range state.Paths {
		if err := s.takePath(p, fds); err != nil {
			return err
		}
	}
	return nil
}

func (s *Steering) describePath(g *pathGroup) PathState {
	state := PathState{At: g.at, Selected: g.selected, Replaced: g.left}
	for _, seat := range g.members {
		state.Members = append(state.Members, seat.describe())
	}
	for _, seat := range s.hidden {
		if seat.group == g {
			state.Hidden = append(state.Hidden, seat.describe())
		}
	}
	return state
}

func (s *pathSeat) describe() PathSeatState {
	return PathSeatState{s.InstanceKey, s.fd, s.inode, s.bound, s.file, s.id.Dev, s.id.Ino, s.seen.Nano(), int(s.state)}
}

func (s *Steering) takePath(state PathState, fds socket.Descriptors) error {
	g := &pathGroup{at: state.At, selected: state.Selected, left: state.Replaced}
	s.paths = append(s.paths, g)
	for _, m := range state.Hidden {
		s.hidden[m.Inode] = m.seat(g, -1)
	}
	for _, m := range state.Members {
		fd, err := fds.Take(m.FD)
		if err != nil {
			return fmt.Errorf("%s: %w", g.at, err)
		}
		g.members = append(g.members, m.seat(g, fd))
	}
	return nil
}

func (s PathSeatState) seat(g *pathGroup, fd int) *pathSeat {
	return &pathSeat{
		ownership: owned(s.InstanceKey, s.State), group: g, fd: fd, inode: s.Inode, bound: s.Bound, file: s.File,
		id: socket.File{Dev: s.Device, Ino: s.FileInode}, seen: unix.NsecToTimespec(s.Seen),
	}
}

// takeGroup leaves the group to be attached at the first occasion: its program may have a probe.
func (s *Steering) takeGroup(state GroupState, fds socket.Descriptors) error {
	g := &group{site: state.Site.site(), selected: state.Selected, stale: s.stale, left: state.Replaced}
	if state.Counted {
		g.begun = make(map[handshake]bool)
	}
	for _, h := range state.Begun {
		g.begun[handshake{h.Local, h.Remote}] = true
	}
	for _, m := range state.Members {
		fd, err := fds.Take(m.FD)
		if err != nil {
			return fmt.Errorf("%s: %w", g.site.at, err)
		}
		member := &memberSocket{ownership: owned(m.InstanceKey, m.State), fd: fd, inode: m.Inode, uid: m.UID, asked: m.Asked}
		g.members = append(g.members, member)
		s.enlist(g, member)
		g.touch()
	}
	return nil
}

// owned leaves out who else has the socket: while that matters an upgrade is under way, and no successor begins.
func owned(m InstanceKey, state int) ownership {
	return ownership{share: share{m, seatState(state)}, orphan: seatState(state) == vacant}
}
