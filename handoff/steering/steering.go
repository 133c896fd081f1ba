package steering

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
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
	// Conflict is for an address that another socket of the same instance has, or another program: the socket was left
	// alone, so that the kernel answers as it would without grace. And for a socket that would take connections from the
	// selected generation at once, because that listens on a less specific address.
	Conflict
)

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

// SteeredQueue is what waits to be accepted by one generation at one address, or path.
type SteeredQueue struct {
	Bound  netip.AddrPort // of TCP sockets
	Path   string         // of unix sockets
	Length int            // connections
}

// ErrNotSteered says that a listen is none of a Steering's, and is to go on as if there were none.
var ErrNotSteered = errors.New("the socket is not steered")

// Steering chooses which generation gets the new connections of each TCP address, in the kernel. Every instance has a
// socket of its own per address, all with SO_REUSEPORT, and a classic BPF program on such a group answers which of them
// a SYN goes to. No privilege is needed for it.
//
// A Steering keeps a duplicate of each listening socket, so that an address stays open when its app has gone. It owns
// them, and its own descriptors, until Close. Its methods may be called from several goroutines at once.
type Steering struct {
	live        func(InstanceKey, uint64) bool
	epoll, wake int
	watching    sync.Mutex    // held by Wait
	alarm       *socket.Alarm // of epoll and wake; nil before the first Wait

	mutex  sync.Mutex
	closed bool
	away   bool // see TurnAway
	index
	ready  map[InstanceKey]bool // see Ready
	probes map[uint16]InstanceKey
	made   map[string]netip.AddrPort // by the name of an address
	left   []SteeredSocket
	given  map[int][]netip.AddrPort // see LetGo
	paths  []*pathGroup
}

// binding is a socket that was bound, and may listen, for the first time or once more. A successor of this process gets it.
type binding struct {
	InstanceKey
	Key   groupKey `json:"Site"`
	Inode uint64
	UID   int  `json:",omitzero"`
	Asked bool `json:",omitzero"` // by the app itself for SO_REUSEPORT
	Reuse bool `json:",omitzero"` // and for SO_REUSEADDR
	Shut  bool `json:",omitzero"` // it has listened, and was shut down
	// Also are the other instances that have the socket, which Take gave to several. Some may have closed it.
	Also []InstanceKey `json:",omitempty"`
}

// holders are the instances that may have the socket.
func (b *binding) holders() []InstanceKey { return append([]InstanceKey{b.InstanceKey}, b.Also...) }

func (b *binding) without(m InstanceKey) []InstanceKey {
	return slices.DeleteFunc(b.holders(), func(other InstanceKey) bool { return other == m })
}

// has makes an instance the one that has the socket, before the others.
func (b *binding) has(m InstanceKey) { b.InstanceKey, b.Also = m, b.without(m) }

// left returns false where nobody has the socket any more.
func (b *binding) left(m InstanceKey) bool {
	others := b.without(m)
	if len(others) == 0 {
		return false
	}
	b.InstanceKey, b.Also = others[0], others[1:]
	return true
}

// NewSteering makes one without addresses. It asks live whether any process of the instance still has the socket with
// this inode, from within Bind and Take; nil stands for always. An answer of no is final: a socket may be ended for it.
func NewSteering(live func(m InstanceKey, inode uint64) bool) (*Steering, error) {
	if live == nil {
		live = func(InstanceKey, uint64) bool { return true }
	}
	s := &Steering{
		live: live, epoll: -1, wake: -1,
		index:  newIndex(),
		ready:  make(map[InstanceKey]bool),
		probes: make(map[uint16]InstanceKey),
		made:   make(map[string]netip.AddrPort),
		given:  make(map[int][]netip.AddrPort),
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot steer connections: %w", err), s.Close())
	}
	return s, nil
}

func (s *Steering) open() (err error) {
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// Bind prepares an app's socket for its group, before the app's bind goes on: fd is a duplicate of it, which stays the
// caller's, at where it is bound, see ParseSockaddr. Whatever the answer and the error, bind is to go on: the error says
// why a socket that should be steered cannot be, and for a Conflict with what.
func (s *Steering) Bind(m InstanceKey, fd int, at netip.AddrPort) (Decision, error) {
	wanted, ok, err := keyWanted(fd, at)
	if err != nil {
		return NotSteered, fmt.Errorf("cannot steer a socket of generation %d: %w", m.Generation, err)
	}
	if !ok {
		return NotSteered, nil
	}
	b, err := s.prepare(m, fd, wanted)
	switch {
	case err != nil:
		return NotSteered, fmt.Errorf("cannot steer %s: %w", wanted.At, err)
	case s.taken(b):
		return Conflict, fmt.Errorf("cannot steer %s: the app has a socket there already", wanted.At)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.share(b, fd)
}

// prepare looks at the socket. When a bind is tried again, the SO_REUSEPORT that is found is of the first try.
func (s *Steering) prepare(m InstanceKey, fd int, wanted groupKey) (*binding, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	b := &binding{InstanceKey: m, Key: wanted}
	asked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err != nil {
		return nil, err
	}
	if b.Inode, b.UID, err = identity(fd); err != nil {
		return nil, err
	}
	b.Asked, b.Reuse = asked != 0, reuses(fd)
	if before := s.bound[b.Inode]; before != nil {
		b.Asked = before.Asked
	}
	return b, nil
}

// taken tells whether a bind has to fail as it does without grace: a socket of the same instance has the address, and
// not both want to share it. One that the app has closed is in the way no more, and has its successor in this one. The
// mutex is not held while it asks.
func (s *Steering) taken(b *binding) bool {
	var closed []uint64
	for _, r := range s.rivalsOf(b) {
		switch {
		case !s.live(b.InstanceKey, r.inode):
			closed = append(closed, r.inode)
		case !r.yields:
			return true
		}
	}
	s.replace(closed, b.Key)
	return false
}

// replace is for sockets that their app has closed, and another one at the address is to follow.
func (s *Steering) replace(closed []uint64, at groupKey) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, inode := range closed {
		state := retired
		if g, _ := s.find(inode); g != nil && g.Key == at {
			state = vacant
		}
		s.abandon([]uint64{inode}, state)
	}
}

// abandon is for sockets that their app has closed.
func (s *Steering) abandon(inodes []uint64, state socketState) {
	for _, inode := range inodes {
		s.unbind(inode)
		if g, member := s.find(inode); member != nil {
			g.abandon(member, state)
			g.touch()
		}
		if member := s.findPath(inode); member != nil {
			abandonPath(member, state)
		}
	}
}

// rival is a socket of the same instance at an address that another one is to be bound to.
type rival struct {
	inode  uint64
	yields bool // the kernel refuses neither, or others have it too, and the instance may have closed it
}

func (s *Steering) rivalsOf(b *binding) []rival {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.rivals(b)
}

func (s *Steering) rivals(b *binding) []rival {
	var found []rival
	add := func(m InstanceKey, p groupKey, asked bool, r rival) {
		if m == b.InstanceKey && r.inode != b.Inode && p.collides(b.Key) && !(asked && b.Asked) {
			found = append(found, r)
		}
	}
	for inode, other := range s.boundAt[b.Key.At.Port()] {
		add(other.InstanceKey, other.Key, other.Asked, rival{inode, other.Shut && other.Reuse && b.Reuse || s.shared(inode)})
	}
	for g := range s.atPort[b.Key.At.Port()] {
		for _, member := range g.Members {
			for _, m := range member.listeners() {
				add(m, g.Key, member.Asked, rival{member.Inode, len(member.Also) > 0})
			}
		}
	}
	return found
}

func (s *Steering) shared(inode uint64) bool {
	_, member := s.find(inode)
	return member != nil && len(member.Also) > 0
}

// share sets what lets the socket share its address with the others of its group.
func (s *Steering) share(b *binding, fd int) (Decision, error) {
	if foreign := s.foreign(b.Key); len(foreign) > 0 {
		err := socket.InUse(socket.Address{Network: "tcp", Addr: b.Key.At.String()}, foreign, nil)
		if b.Asked {
			return NotSteered, fmt.Errorf("%w; both asked to share the address (SO_REUSEPORT)", err)
		}
		return Conflict, err
	}
	if g := s.robbed(b); g != nil {
		return Conflict, fmt.Errorf("cannot steer %s: its socket would take the clients of generation %d on %s before the new generation is ready; "+
			"an upgrade cannot give up an address: let the app listen there too, or restart grace", b.Key, g.Selected, g.Key)
	}
	if owner := s.owner(b); owner != b.UID {
		if err := unix.Fchown(fd, owner, -1); err != nil {
			return NotSteered, fmt.Errorf("cannot steer %s: %w: the sockets at this address belong to uid %d, this one to uid %d; "+
				"run the app as the same user as before, or grace as root", b.Key.At, err, owner, b.UID)
		}
		b.UID = owner
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return NotSteered, fmt.Errorf("cannot steer %s: %w", b.Key.At, err)
	}
	s.bind(b)
	return Steered, nil
}

// robbed finds the group, of a less specific address, whose new connections the kernel would give to the socket as soon as it
// listens. Where sockets listen at the same address already, the group's program decides.
func (s *Steering) robbed(b *binding) *group {
	if g := s.groups[b.Key]; g != nil && g.serves() {
		return nil
	}
	for _, g := range s.atPort[b.Key.At.Port()].sorted() {
		if b.Key.takesFrom(g.Key) && g.losesTo(b.Generation) {
			return g
		}
	}
	return nil
}

// owner is the user of the sockets that the kernel will compare this one with: sockets share an address only if they
// belong to one user.
func (s *Steering) owner(b *binding) int {
	for g := range s.atPort[b.Key.At.Port()] {
		if g.Key.collides(b.Key) {
			return g.Members[0].UID
		}
	}
	for _, other := range s.boundAt[b.Key.At.Port()] {
		if other.Key.collides(b.Key) {
			return other.UID
		}
	}
	return b.UID
}

// foreign are the sockets of other programs that listen at the address: uids by inode. Two programs of one user would share
// it by SO_REUSEPORT: each would get a part of the connections, and the numbers in the group would be wrong. Where the
// kernel has no inet_diag there seem to be none.
func (s *Steering) foreign(p groupKey) map[uint64]int {
	inodes, err := sockdiag.InetHolding("tcp", p.At, p.V6Only)
	if err != nil {
		return nil
	}
	for inode := range inodes {
		if s.byInode[inode] != nil {
			delete(inodes, inode)
		}
	}
	return inodes
}

// Listen makes the app's socket listen and a member of its address's group. fd is a duplicate of it, which Listen owns
// whatever the answer; backlog is the app's. The first member of a group gets its connections at once, others when their
// generation is selected.
//
// ErrNotSteered says that the app's listen is to go on. Any other error is to be the app's answer: errors.As finds a
// unix.Errno in it. A second listen on the same socket changes its backlog only.
func (s *Steering) Listen(m InstanceKey, fd, backlog int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.listen(m, fd, backlog)
}

func (s *Steering) listen(m InstanceKey, fd, backlog int) error {
	s.drain() // one that was shut down and listens again gets a new number
	inode, uid, err := identity(fd)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	if member := s.findPath(inode); member != nil {
		return s.listenPath(member, m, fd, backlog)
	}
	if g, known := s.find(inode); known != nil {
		return errors.Join(s.listenAgain(g, known, m, backlog), unix.Close(fd))
	}
	at, err := keyOf(fd)
	b := s.bound[inode]
	if err != nil || b == nil || b.Key.At != at.At {
		return errors.Join(ErrNotSteered, unix.Close(fd))
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return errors.Join(fmt.Errorf("cannot listen on %s: %w", at.At, err), unix.Close(fd))
	}
	// The binding stays: a socket that is shut down may listen once more. Others who have bound it may have closed it.
	b.has(m)
	b.Shut = false
	return s.join(at, &memberSocket{ownership: s.startsWith(m), FD: fd, Inode: inode, UID: uid, Asked: b.Asked})
}

// Awaits reports whether the socket with this inode was prepared by Bind and has not come to Listen.
func (s *Steering) Awaits(inode uint64) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	_, member := s.find(inode)
	return s.bound[inode] != nil && member == nil
}

func (s *Steering) listenAgain(g *group, known *memberSocket, m InstanceKey, backlog int) error {
	if err := unix.Listen(known.FD, backlog); err != nil {
		return fmt.Errorf("cannot listen on %s: %w", g.Key.At, err)
	}
	s.holds(g, known, m)
	return s.refresh()
}

func (s *Steering) holds(g *group, known *memberSocket, m InstanceKey) {
	known.hold(m)
	known.Unready = !slices.ContainsFunc(known.listeners(), func(m InstanceKey) bool { return s.ready[m] })
	g.touch()
}

// join attaches the program after listen and never before: a program gives a socket that does not listen a group of
// its own, with which listen fails by EADDRINUSE.
func (s *Steering) join(at groupKey, new *memberSocket) error {
	g := s.groups[at]
	if g != nil {
		g.add(new)
		g.touch()
	} else {
		g = newGroup(at, new, s.stale)
		g.away = s.away
	}
	s.enlist(g, new)
	err := s.watch(new)
	if err == nil {
		err = s.refresh()
	}
	if err != nil {
		return errors.Join(err, s.leave(new), s.refresh())
	}
	// What cannot be closed now is tried again at the next change, and is no reason to fail the app.
	_ = s.sweep()
	return nil
}

// leave ends a socket that cannot be a member, unless it was shut down meanwhile and is none any more.
func (s *Steering) leave(new *memberSocket) error {
	g, member := s.find(new.Inode)
	if member != new {
		return nil
	}
	return s.end(g, slices.Index(g.Members, member))
}

// watch asks for no EPOLLIN: connections wake the app's set and not this one. EPOLLHUP is always on, and EPOLLET
// tells of each shutdown once. The kernel lists them in the order in which they happened. They go by inode, because a
// successor of this process has the set with other descriptors.
func (s *Steering) watch(new *memberSocket) error {
	event := unix.EpollEvent{Events: unix.EPOLLET, Fd: int32(new.Inode), Pad: int32(new.Inode >> 32)}
	err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, new.FD, &event)
	if err != nil && err != unix.EEXIST { // a predecessor has watched it under this number, and could not be told of its end
		return fmt.Errorf("cannot watch a listener: %w", err)
	}
	return nil
}

// refresh gives every group that has changed its new program. A group can lose a socket meanwhile, even the one through
// which the program was attached, which then went with it.
func (s *Steering) refresh() error {
	var errs []error
	for s.drain(); len(s.stale) > 0; s.drain() {
		for _, g := range s.stale.sorted() {
			delete(s.stale, g)
			s.unswept[g] = true
			errs = append(errs, g.apply(s.probes))
		}
	}
	return errors.Join(errs...)
}

// drain takes out of the groups what was shut down, in the order in which it was: the numbers depend on it.
func (s *Steering) drain() {
	var event [1]unix.EpollEvent
	for {
		n, err := unix.EpollWait(s.epoll, event[:], 0)
		switch {
		case err == unix.EINTR:
		case n <= 0:
			return
		default:
			s.heed(uint64(uint32(event[0].Fd)) | uint64(uint32(event[0].Pad))<<32)
		}
	}
}

// heed takes a socket out of its group, unless it has gone already or listens again.
func (s *Steering) heed(inode uint64) {
	g, member := s.find(inode)
	if member == nil || listens(member.FD) {
		return
	}
	if b := s.bound[inode]; b != nil {
		b.Shut = true
	}
	s.left = append(s.left, SteeredSocket{InstanceKey: member.InstanceKey, Bound: g.Key.At, Inode: member.Inode})
	// No error matters: the counter cannot overflow, and the socket is dead already.
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	_ = s.end(g, slices.Index(g.Members, member))
}

// end ends a socket for all who have it: if somebody still did, closing the descriptor alone would leave it in the
// group, and the numbers would be wrong. For the same reason the watch has to be told. With its last socket the group
// ends: there is none without members.
func (s *Steering) end(g *group, number int) error {
	member, last := g.Members[number], len(g.Members) == 1
	if !last {
		g.remove(number)
	}
	s.strike(g, member, last)
	fd := member.FD
	_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	_ = unix.Shutdown(fd, unix.SHUT_RD)
	return unix.Close(fd)
}

// sweep closes what has retired, as far as it is safe now.
func (s *Steering) sweep() error {
	for _, g := range s.unswept.sorted() {
		for swept := true; swept && s.groups[g.Key] == g; {
			var err error
			if swept, err = s.sweepOne(g); err != nil {
				return err
			}
		}
		if !g.hasRetired() {
			delete(s.unswept, g)
		}
	}
	return nil
}

func (s *Steering) sweepOne(g *group) (bool, error) {
	number, before := g.removable()
	if number < 0 {
		return false, nil
	}
	if err := g.attach(before, g.targets(s.probes)); err != nil {
		return false, err
	}
	return true, errors.Join(s.end(g, number), s.refresh())
}

// TurnAway keeps new connections from all sockets, for good. At an address those that begin from now on wait, and are
// refused when the last of its sockets is closed; a path is removed. What is in the queues, and what has begun, stays:
// Queued tells when it has been accepted.
func (s *Steering) TurnAway() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.away = true
	var errs []error
	for _, p := range s.places() {
		errs = append(errs, p.turnAway())
	}
	return errors.Join(s.refresh(), errors.Join(errs...))
}

// LetGo gives the generation's sockets up to its app: their addresses are refused once that has closed them. It comes
// after TurnAway, as the numbers in the groups mean nothing then.
func (s *Steering) LetGo(generation int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	var errs []error
	s.given[generation] = s.addresses(generation)
	for _, g := range s.groups {
		for i := len(g.Members) - 1; i >= 0; i-- {
			member := g.Members[i]
			if member.Generation != generation {
				continue
			}
			_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, member.FD, nil)
			errs = append(errs, unix.Close(member.FD))
			s.strike(g, member, len(g.Members) == 1)
			g.Members = slices.Delete(g.Members, i, i+1)
		}
	}
	return errors.Join(errs...)
}

// probe makes connections from this local port go to one instance, wherever it listens, until endProbe. The port is that
// of the machine itself or of any client: take one that is bound for the probe.
func (s *Steering) probe(port uint16, m InstanceKey) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.probes[port] = m
	return s.applyAll()
}

// endProbe makes connections from the port ordinary ones again.
func (s *Steering) endProbe(port uint16) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.probes, port)
	return s.applyAll()
}

// Vacate says that the instance has gone, and that another is to take its place. Where nothing else of its generation
// listens, its sockets go on taking connections, which wait; else they get none. They are the ones that Take and Own
// give, and retire when a new socket of the same InstanceKey listens.
func (s *Steering) Vacate(m InstanceKey) error {
	return s.dismiss(m, vacant)
}

// startsWith is for a socket that an instance begins to listen on.
func (s *Steering) startsWith(m InstanceKey) ownership {
	o := makeFor(m)
	o.Unready = !s.ready[m]
	return o
}

// Ready says that the instance serves: it gets its part of what its generation gets, which others of it had till then. If
// that are new connections, its sockets are given to no other instance while it lives; if not, the Steer to it has this
// effect.
func (s *Steering) Ready(m InstanceKey) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.ready[m] = true
	for _, g := range s.sorted() {
		g.readied(m)
	}
	s.settle(m)
	return s.apply()
}

func (s *Steering) settle(m InstanceKey) {
	for _, p := range s.places() {
		if !p.list().gets(m.Generation) {
			continue
		}
		for _, o := range p.list().owners() {
			if o.heldBy(m) {
				o.settle(m)
			}
		}
	}
}

// Retire says that the instance has gone, and that nobody will take its place. Its sockets are closed at
// once if that is safe, otherwise when another listens or the next cutover has been; an address with only retired ones
// is closed.
func (s *Steering) Retire(m InstanceKey) error {
	return s.dismiss(m, retired)
}

// RetireAll is Retire for each instance of a generation.
func (s *Steering) RetireAll(generation int) error {
	var errs []error
	for _, m := range s.instances(generation) {
		errs = append(errs, s.Retire(m))
	}
	return errors.Join(errs...)
}

// instances are those of the generation that have bound anything, or had.
func (s *Steering) instances(generation int) []InstanceKey {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := map[InstanceKey]bool{}
	add := func(members ...InstanceKey) {
		for _, m := range of(generation, members) {
			found[m] = true
		}
	}
	for _, b := range s.bound {
		add(b.holders()...)
	}
	for _, member := range s.pathSockets() {
		add(member.members()...)
	}
	for _, p := range s.places() {
		for _, o := range p.list().owners() {
			add(o.members()...)
		}
	}
	return slices.Collect(maps.Keys(found))
}

// Forget says that nobody has these sockets any more, or is about to take them over: their app has closed them.
func (s *Steering) Forget(inodes ...uint64) error {
	if len(inodes) == 0 {
		return nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.abandon(inodes, retired)
	return s.apply()
}

func (s *Steering) dismiss(m InstanceKey, state socketState) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.ready, m)
	for inode, b := range s.bound {
		if !b.left(m) {
			s.unbind(inode)
		}
	}
	for _, p := range s.places() {
		if slices.ContainsFunc(p.list().owners(), func(o *ownership) bool { return o.heldBy(m) }) {
			p.list().leave(m, state)
			p.touch()
		}
	}
	s.dropHidden(m)
	return s.apply()
}

// applyAll is apply for a change that concerns all groups.
func (s *Steering) applyAll() error {
	for _, g := range s.groups {
		g.touch()
	}
	return s.apply()
}

// apply makes the kernel do as the places are now.
func (s *Steering) apply() error {
	err := s.sweepPaths()
	if failed := s.refresh(); failed != nil {
		return errors.Join(err, failed)
	}
	return errors.Join(err, s.sweep())
}

// Addresses are the TCP ones where the generation has a socket, by rising address, the ones of ended instances too, and
// those that were let go.
func (s *Steering) Addresses(generation int) []netip.AddrPort {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.addresses(generation)
}

func (s *Steering) addresses(generation int) []netip.AddrPort {
	found := slices.Clone(s.given[generation])
	for _, g := range s.sorted() {
		if g.concerns(generation) {
			found = append(found, g.Key.At)
		}
	}
	return slices.Compact(found)
}

// Places are the addresses and the paths where the generation has a socket.
func (s *Steering) Places(generation int) []string {
	var places []string
	for _, at := range s.Addresses(generation) {
		places = append(places, at.String())
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, g := range s.paths {
		if g.concerns(generation) {
			places = append(places, g.At)
		}
	}
	return places
}

// Sockets are those that the generation's instances listen on.
func (s *Steering) Sockets(generation int) []SteeredSocket {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	var found []SteeredSocket
	for _, p := range s.places() {
		for _, member := range p.list().Members {
			for _, m := range of(generation, member.listeners()) {
				found = append(found, p.socket(m, member.Inode))
			}
		}
	}
	return found
}

// Queues gives each address at which a generation listens. One whose length cannot be read is left out.
func (s *Steering) Queues(generation int) []SteeredQueue {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	q := s.queueLengths(generation)
	var found []SteeredQueue
	for _, p := range s.places() {
		if !p.list().has(generation) {
			continue
		}
		if n, err := queued(p, generation, q); err == nil {
			at := p.socket(InstanceKey{}, 0)
			found = append(found, SteeredQueue{Bound: at.Bound, Path: at.Path, Length: n})
		}
	}
	return found
}

// Queued counts the connections that wait in the generation's queues to be accepted. After a cutover away from it, those
// are counted too whose handshake had begun before, for at most 3.5 seconds: they still come.
func (s *Steering) Queued(generation int) (sum int, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	q := s.queueLengths(generation)
	for _, p := range s.places() {
		n, err := queued(p, generation, q)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Awaited tells whether connections wait in a socket that an instance of the generation has left for another one to take,
// see Vacate.
func (s *Steering) Awaited(generation int) (bool, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	q := s.queueLengths(generation)
	for _, p := range s.places() {
		for _, member := range p.list().Members {
			if !member.vacatedBy(generation) {
				continue
			}
			if n, err := p.waiting(member, q); err != nil || n > 0 {
				return err == nil, err
			}
		}
	}
	return false, nil
}

// Wait blocks until an app has shut down a socket, and returns it: it is a member no more. After Close it returns
// net.ErrClosed. Somebody has to wait always: until a group has its new program, the numbers of the old one may mean
// other sockets.
func (s *Steering) Wait() (SteeredSocket, error) {
	s.watching.Lock()
	defer s.watching.Unlock()
	for {
		left, err := s.next()
		if err != nil || left != (SteeredSocket{}) {
			return left, err
		}
		if err := s.await(); err != nil {
			return SteeredSocket{}, fmt.Errorf("cannot watch listeners: %w", err)
		}
	}
}

// await only looks at the set, which is read under the mutex: whoever reads it has to change the numbers.
func (s *Steering) await() (err error) {
	if s.alarm == nil {
		if s.alarm, err = socket.NewAlarm(s.epoll, s.wake); err != nil {
			return err
		}
	}
	return s.alarm.Wait()
}

func (s *Steering) next() (SteeredSocket, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return SteeredSocket{}, net.ErrClosed
	}
	var count [8]byte
	_, _ = unix.Read(s.wake, count[:]) // EAGAIN if nobody has written
	if err := s.refresh(); err != nil || len(s.left) == 0 {
		return SteeredSocket{}, err
	}
	left := s.left[0]
	s.left = s.left[1:]
	return left, nil
}

// Close ends a Wait and closes the Steering's descriptors: an address whose app has gone is closed with them. Apps keep
// their sockets, and the groups their programs. A second Close does nothing; no other method is to be called after it.
func (s *Steering) Close() error {
	s.mutex.Lock()
	s.closed = true
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	s.mutex.Unlock()
	s.watching.Lock()
	defer s.watching.Unlock()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	errs := []error{s.alarm.Close(), socket.CloseFD(s.epoll), socket.CloseFD(s.wake)}
	s.epoll, s.wake = -1, -1
	for _, p := range s.places() {
		for _, member := range p.list().Members {
			errs = append(errs, socket.CloseFD(member.FD))
		}
	}
	for _, g := range s.paths {
		if g.keeper != nil {
			errs = append(errs, g.unkeep())
		}
	}
	s.index = newIndex()
	s.paths = nil
	return errors.Join(errs...)
}
