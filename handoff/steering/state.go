package steering

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// SteeringState is what a successor of this process has to know of a Steering. It is to be written, as JSON, before the
// Steering is resumed. The descriptors in it stay the Steering's: the successor gets duplicates.
type SteeringState struct {
	// Watch is the epoll set that tells which sockets were shut down, and in which order: nobody knows it otherwise,
	// and the kernel's numbers depend on it. What happens during the handover waits there.
	Watch  int
	Groups []*group
	Bound  []*binding
	Made   map[string]netip.AddrPort
	Left   []SteeredSocket
	Paths  []*pathGroup
}

// FDs are the descriptors that the successor needs.
func (s SteeringState) FDs() []int {
	fds := []int{s.Watch}
	for _, g := range s.Paths {
		fds = append(fds, g.fds()...)
	}
	for _, g := range s.Groups {
		fds = append(fds, g.fds()...)
	}
	return fds
}

func (l *memberList) fds() (fds []int) {
	for _, s := range l.Members {
		fds = append(fds, s.FD)
	}
	return fds
}

// Suspend describes the Steering, and holds all its methods up until Resume: from now on the successor alone may read
// which sockets were shut down. A process that has a successor never resumes.
func (s *Steering) Suspend() (SteeringState, error) {
	s.mutex.Lock()
	if err := s.refresh(); err != nil {
		s.mutex.Unlock()
		return SteeringState{}, fmt.Errorf("cannot hand the steering over: %w", err)
	}
	return SteeringState{
		Watch: s.epoll, Groups: s.sorted(), Bound: slices.Collect(maps.Values(s.bound)), Made: s.made, Left: s.left, Paths: s.paths,
	}, nil
}

// Resume goes on after Suspend, where there came no successor.
func (s *Steering) Resume() { s.mutex.Unlock() }

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
		s.bind(b)
	}
	for _, g := range state.Groups {
		if err := s.takeGroup(g, fds); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	for _, g := range state.Paths {
		if err := s.takePath(g, fds); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	return nil
}

// takeGroup leaves the group to be attached at the first occasion: its program may have a probe.
func (s *Steering) takeGroup(g *group, fds socket.Descriptors) error {
	g.stale = s.stale
	err := g.takeOver(fds)
	for _, member := range g.Members {
		s.enlist(g, member)
		g.touch()
	}
	return err
}

func (s *Steering) takePath(g *pathGroup, fds socket.Descriptors) error {
	s.paths = append(s.paths, g)
	for _, member := range slices.Concat(g.Members, g.Hidden) {
		member.group = g
	}
	return g.takeOver(fds)
}
