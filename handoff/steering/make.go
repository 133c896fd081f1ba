package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// Make makes an instance's own socket of a TCP address that grace is to hold: bound, listening, blocking, close-on-exec,
// and a member of its group as after Listen. The caller gives the descriptor to the instance, and closes it. A name is
// looked up, and a port chosen by the kernel for :0, by the first Make for addresses of this Name; later ones get the
// same.
func (s *Steering) Make(m InstanceKey, a socket.Address) (fd int, err error) {
	if !a.Stream() || a.Unix() {
		return -1, fmt.Errorf("cannot steer %s://%s: only TCP listeners can be steered", a.Network, a.Addr)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var b *binding
	l, err := socket.BindShared(a, s.made[a.Name], func(fd int, host netip.AddrPort) (err error) {
		b, err = s.shareMade(m, fd, host)
		return err
	})
	if err != nil {
		return -1, err
	}
	if err := s.joinMade(l, b); err != nil {
		return -1, errors.Join(err, l.Close())
	}
	return l.FD(), nil
}

func (s *Steering) shareMade(m InstanceKey, fd int, host netip.AddrPort) (b *binding, err error) {
	b = &binding{InstanceKey: m}
	if b.Key, err = keyAt(fd, host); err == nil {
		b.Inode, b.UID, err = identity(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot set up a socket for %s: %w", host, err)
	}
	decision, err := s.share(b, fd)
	if decision == Conflict {
		err = unix.EADDRINUSE
	}
	return b, err
}

// joinMade gives the group a duplicate, which it keeps.
func (s *Steering) joinMade(l *socket.Listener, b *binding) (err error) {
	if b.Key, err = keyOf(l.FD()); err != nil {
		return fmt.Errorf("cannot read the address of %s: %w", l.Address().Addr, err)
	}
	duplicate, err := unix.FcntlInt(uintptr(l.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot keep a socket for %s: %w", l.Address().Addr, err)
	}
	s.made[l.Name()] = b.Key.At
	return s.join(b.Key, &memberSocket{ownership: s.startsWith(b.InstanceKey), FD: duplicate, Inode: b.Inode, UID: b.UID})
}

// Take gives a vacant socket (see Vacate) to an instance that binds the same address: that of the same InstanceKey, which it
// succeeds, or of another generation; or to the instance itself, if it has closed what it had there. It is a duplicate
// to put in the place of fd, the caller's duplicate of the socket that the instance binds. What waits in its queue is
// then not lost. It is -1 if there is none. The caller owns what it gets; the instance's listen makes it a live member
// again. Where the instance leaves it while another generation is selected that had it before, it is vacant there again.
// Where nothing of the selected generation lives, all who start get the same until one of them is Ready.
func (s *Steering) Take(m InstanceKey, fd int, at netip.AddrPort) (int, error) {
	wanted, ok, err := keyWanted(fd, at)
	if err != nil || !ok {
		return -1, nil // Bind tells why
	}
	there := func() place { return s.groupAt(wanted) }
	s.vacateClosed(m, there)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	member, left, err := handOver(m, there(), func(member *memberSocket) (int, error) { return member.duplicateLike(fd) })
	if member != nil {
		b := &binding{InstanceKey: m, Key: wanted, Inode: member.Inode, UID: member.UID, Asked: member.Asked, Reuse: reuses(member.FD)}
		if before := s.bound[b.Inode]; before != nil {
			b.Also = before.without(m)
		}
		s.bind(b)
	}
	return left, err
}

// Left tells at little cost whether Take may have a socket for the instance.
func (s *Steering) Left(m InstanceKey, fd int, at netip.AddrPort) bool {
	wanted, ok, err := keyWanted(fd, at)
	if err != nil || !ok {
		return false
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	p := s.groupAt(wanted)
	return p != nil && (len(p.list().keptBy(m)) > 0 || p.list().vacancy(m) != nil)
}

// reuses tells whether a socket has SO_REUSEADDR.
func reuses(fd int) bool {
	value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	return err == nil && value != 0
}

// vacateClosed lets the instance take up again what it has closed. The mutex is not held while it asks.
func (s *Steering) vacateClosed(m InstanceKey, at func() place) {
	closed := slices.DeleteFunc(s.kept(m, at), func(inode uint64) bool { return s.live(m, inode) })
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.abandon(closed, vacant)
}

func (s *Steering) kept(m InstanceKey, at func() place) []uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if p := at(); p != nil {
		return p.list().keptBy(m)
	}
	return nil
}

// groupAt is the group as it is now, or nil.
func (s *Steering) groupAt(at groupKey) place {
	s.drain()
	if g := s.groups[at]; g != nil {
		return g
	}
	return nil
}

// handOver gives the instance a duplicate of what has been left to it at the place: nil and -1 if nothing has.
func handOver(m InstanceKey, p place, duplicate func(*memberSocket) (int, error)) (*memberSocket, int, error) {
	if p == nil {
		return nil, -1, nil
	}
	member := p.list().vacancy(m)
	if member == nil {
		return nil, -1, nil
	}
	fd, err := duplicate(member)
	if err != nil {
		return nil, -1, fmt.Errorf("cannot hand a socket over: %w", err)
	}
	member.promise(m, p.list().Selected)
	return member, fd, nil
}

func (s *memberSocket) duplicate() (int, error) {
	return unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
}

// duplicateLike makes the socket block or not, as the other does, which it is to replace.
func (s *memberSocket) duplicateLike(fd int) (int, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(s.FD), unix.F_SETFL, flags)
	}
	if err != nil {
		return -1, err
	}
	return s.duplicate()
}

// Own gives an instance its socket of an address that l reserves: listening, and a member of its group. Where one is
// vacant, it is that one with what waits in its queue, as for Take. The caller closes it when the instance was started.
func (s *Steering) Own(m InstanceKey, l *socket.Listener) (*socket.Listener, error) {
	if l.Network() == "unix" {
		return s.ownPath(m, l)
	}
	fd, err := s.vacant(m, l)
	if err == nil && fd < 0 {
		a := l.Address()
		a.Addr = l.Bound()
		fd, err = s.Make(m, a)
	}
	if err != nil {
		return nil, err
	}
	return l.With(fd)
}

func (s *Steering) vacant(m InstanceKey, l *socket.Listener) (int, error) {
	at, err := keyOf(l.FD())
	if err != nil {
		return -1, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	member, fd, err := handOver(m, s.groupAt(at), (*memberSocket).duplicate)
	if err != nil || member == nil {
		return -1, err
	}
	if err := s.listenAgain(s.groups[at], member, m, l.Address().QueueLength()); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
