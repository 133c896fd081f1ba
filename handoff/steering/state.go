package steering

import (
	"cmp"
	"encoding/json"
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
	// and the kernel's numbers depend on it. What happens during the handover waits there. -1 is for a new one, after the
	// predecessor was killed.
	Watch  int
	Groups []*group
	Bound  []*binding
	Made   map[string]netip.AddrPort `json:",omitempty"`
	Left   []SteeredSocket           `json:",omitempty"`
	Paths  []*pathGroup              `json:",omitempty"`
	Ready  []InstanceKey             // see Steering.Ready; null is of a version that knew nothing of it: all are
	text   []byte                    // of a Copy
}

// MarshalJSON is cheap for a Copy: that is encoded.
func (s SteeringState) MarshalJSON() ([]byte, error) {
	if s.text != nil {
		return s.text, nil
	}
	type fields SteeringState
	return json.Marshal(fields(s))
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
	return s.state(), nil
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
	if state.Watch >= 0 {
		watch, err := fds.Take(state.Watch)
		if err != nil {
			return err
		}
		if err := unix.Close(s.epoll); err != nil {
			return err
		}
		s.epoll = watch
	}
	s.left = state.Left
	for _, m := range state.readied() {
		s.ready[m] = true
	}
	maps.Copy(s.made, state.Made)
	for _, b := range state.Bound {
		s.bind(b)
	}
	for _, g := range state.Groups {
		if err := s.takeGroup(g, fds); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
		if state.Watch >= 0 {
			continue // its sockets are in the set
		}
		_ = g.reorder() // where that is not possible the numbers are likely to be right, or the next restart of all sets them right
		for _, member := range g.Members {
			if err := s.watch(member); err != nil {
				return fmt.Errorf("%s: %w", g, err)
			}
		}
	}
	for _, g := range state.Paths {
		if state.Watch < 0 {
			g.locate()
		}
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
	for _, member := range g.gone {
		if member.leads() {
			_ = unix.Unlink(member.File) // what stays is removed by whoever wants the name
		}
	}
	s.paths = append(s.paths, g)
	for _, member := range slices.Concat(g.Members, g.Hidden) {
		member.group = g
	}
	return g.takeOver(fds)
}

// Copy describes the Steering as it is now, for who is to go on after this process was killed. All that can be done with it is to
// write it as JSON. Copy shows each of its sockets, while that is open for sure.
func (s *Steering) Copy(show func(inode uint64, fd int)) (SteeringState, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	state := s.state()
	for _, l := range state.lists() {
		for _, member := range l.Members {
			show(member.Inode, member.FD)
		}
	}
	text, err := json.Marshal(state)
	return SteeringState{text: text}, err
}

func (s *Steering) state() SteeringState {
	return SteeringState{
		Watch: s.epoll, Groups: s.sorted(), Bound: slices.Collect(maps.Values(s.bound)), Made: s.made, Left: s.left, Paths: s.paths,
		Ready: slices.AppendSeq([]InstanceKey{}, maps.Keys(s.ready)),
	}
}

func (s SteeringState) readied() []InstanceKey {
	if s.Ready != nil {
		return s.Ready
	}
	var all []InstanceKey
	for _, b := range s.Bound {
		all = append(all, b.holders()...)
	}
	for _, l := range s.lists() {
		for _, member := range l.Members {
			all = append(all, member.listeners()...)
		}
	}
	return all
}

// Check refuses a state that is not complete, as a file can have been changed.
func (s SteeringState) Check() error {
	if slices.Contains(s.Groups, nil) || slices.Contains(s.Bound, nil) || slices.Contains(s.Paths, nil) {
		return errors.New("the state of the steering is incomplete")
	}
	inodes := map[uint64]bool{}
	for _, l := range s.lists() {
		for _, member := range l.Members {
			if member == nil || member.FD < 0 || inodes[member.Inode] {
				return errors.New("the state of the steering has a socket that cannot be")
			}
			inodes[member.Inode] = true
		}
	}
	for _, g := range s.Paths {
		if slices.Contains(g.Hidden, nil) {
			return errors.New("the state of the steering is incomplete")
		}
	}
	return nil
}

// Inodes are those of all sockets in the state.
func (s SteeringState) Inodes() (inodes []uint64) {
	for _, l := range s.lists() {
		for _, member := range l.Members {
			inodes = append(inodes, member.Inode)
		}
	}
	return inodes
}

// Listens tells whether the instance listens on any of the sockets.
func (s SteeringState) Listens(m InstanceKey) bool {
	listens := func(member *memberSocket) bool { return slices.Contains(member.listeners(), m) }
	return slices.ContainsFunc(s.lists(), func(l *memberList) bool { return slices.ContainsFunc(l.Members, listens) })
}

// Vacate leaves the sockets of an instance that was ended to the next one in its place, as Steering.Vacate does.
func (s *SteeringState) Vacate(m InstanceKey) {
	if s.Ready != nil {
		s.Ready = slices.DeleteFunc(s.Ready, func(other InstanceKey) bool { return other == m })
	}
	for _, l := range s.lists() {
		l.leave(m, vacant)
	}
}

func (s SteeringState) lists() (all []*memberList) {
	for _, g := range s.Groups {
		all = append(all, &g.memberList)
	}
	for _, g := range s.Paths {
		all = append(all, &g.memberList)
	}
	return all
}

// Keep leaves out the sockets that nobody has any more: found are those that were found with the apps of a predecessor that was
// killed, by inode. It adds them to the descriptors.
func (s *SteeringState) Keep(found map[uint64]int, fds socket.Descriptors) {
	s.Watch, s.Left = -1, nil
	for _, g := range s.Groups {
		g.was = g.choice()
		for _, member := range g.lost(found) {
			if number := slices.Index(g.Members, member); len(g.Members) > 1 {
				g.Members[number] = g.Members[len(g.Members)-1]
				g.Members = g.Members[:len(g.Members)-1]
			} else {
				g.Members = nil
			}
		}
	}
	for _, g := range s.Paths {
		g.gone = g.lost(found)
	}
	for _, l := range s.lists() {
		l.Members = slices.DeleteFunc(l.Members, func(member *memberSocket) bool { return found[member.Inode] == 0 })
		for _, member := range l.Members {
			fds[member.FD] = found[member.Inode]
		}
	}
	s.Groups = slices.DeleteFunc(s.Groups, func(g *group) bool { return len(g.Members) == 0 })
}

// Add adds a socket of which a predecessor that was killed had not told yet: an app has it, and it listens. There is its number
// among the descriptors. What can be no socket of the steering is left out, and reported by false.
func (s *SteeringState) Add(m InstanceKey, fd, there int) (added bool, err error) {
	shared, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err != nil || shared == 0 {
		return false, err
	}
	at, err := keyOf(fd)
	if err != nil {
		return false, err
	}
	inode, uid, err := identity(fd)
	if err != nil || slices.Contains(s.Inodes(), inode) {
		return false, err
	}
	b := s.binding(inode)
	if b == nil { // who has asked for SO_REUSEPORT is not known: an app may
		b = &binding{InstanceKey: m, Key: at, Inode: inode, UID: uid, Asked: true, Reuse: reuses(fd)}
		s.Bound = append(s.Bound, b)
	}
	g := s.group(at)
	g.Members = append(g.Members, &memberSocket{ownership: makeFor(m), FD: there, Inode: inode, UID: uid, Asked: b.Asked})
	if len(g.Members) == 1 {
		g.Selected = m.Generation
	}
	return true, nil
}

// Reserve has clients wait at the addresses of sockets that a process before has left, for whoever binds there first: it gets such a
// socket, with who waits in it. One is enough for each address. The generation after that of the InstanceKey is selected there. Retire of the InstanceKey gives up those that nobody has taken. It owns the descriptors.
func (s *Steering) Reserve(m InstanceKey, fds []int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	state, open := SteeringState{Watch: -1}, socket.Descriptors{}
	for _, fd := range fds {
		if at, err := keyOf(fd); err != nil || !listens(fd) || slices.ContainsFunc(state.Groups, func(g *group) bool { return g.Key == at }) {
			unix.Close(fd)
		} else if added, err := state.Add(m, fd, fd); added && err == nil {
			open[fd] = fd
		} else {
			unix.Close(fd)
		}
	}
	state.Bound = nil
	state.Vacate(m)
	for _, g := range state.Groups {
		g.Selected = m.Generation + 1
	}
	err := s.takeOver(state, open)
	for _, fd := range open {
		unix.Close(fd)
	}
	return errors.Join(err, s.refresh())
}

func (s *SteeringState) binding(inode uint64) *binding {
	i := slices.IndexFunc(s.Bound, func(b *binding) bool { return b.Inode == inode })
	if i < 0 {
		return nil
	}
	return s.Bound[i]
}

func (s *SteeringState) group(at groupKey) *group {
	i := slices.IndexFunc(s.Groups, func(g *group) bool { return g.Key == at })
	if i < 0 {
		i, s.Groups = len(s.Groups), append(s.Groups, &group{Key: at})
	}
	return s.Groups[i]
}

// lost are the members that were not found, in the order in which a process that ends closes what it has.
func (l *memberList) lost(found map[uint64]int) []*memberSocket {
	lost := slices.DeleteFunc(slices.Clone(l.Members), func(s *memberSocket) bool { return found[s.Inode] != 0 })
	slices.SortFunc(lost, func(a, b *memberSocket) int { return cmp.Compare(a.FD, b.FD) })
	return lost
}
