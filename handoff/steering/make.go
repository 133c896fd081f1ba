package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
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
	hosts := []netip.AddrPort{s.made[a.Name]}
	if !hosts[0].IsValid() {
		if hosts, err = a.Hosts(); err != nil {
			return -1, fmt.Errorf("cannot bind %s: %w", a.Addr, err)
		}
	}
	for i, host := range hosts {
		fd, err = s.makeAt(m, a, host)
		if err == nil || !socket.FamilyMissing(err) || i == len(hosts)-1 {
			break
		}
	}
	return fd, err
}

func (s *Steering) makeAt(m InstanceKey, a socket.Address, host netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if host.Addr().Is6() {
		family = unix.AF_INET6
	}
	l, err := socket.NewListener(a, family)
	if err != nil {
		return -1, err
	}
	if err := s.bindMade(m, l, host); err != nil {
		return -1, errors.Join(err, unix.Close(l.FD()))
	}
	return l.FD(), nil
}

// bindMade makes the socket listen through a duplicate, which the group keeps.
func (s *Steering) bindMade(m InstanceKey, l *socket.Listener, host netip.AddrPort) error {
	sockaddr, err := inetaddr.Sockaddr(host)
	if err != nil {
		return fmt.Errorf("cannot bind %s: %w", l.Address().Addr, err)
	}
	b, err := s.shareMade(m, l, host)
	if err != nil {
		return err
	}
	if err := unix.Bind(l.FD(), sockaddr); err != nil {
		return socket.ExplainInet(l.Address(), host, err)
	}
	if b.site, err = siteOf(l.FD()); err != nil {
		return fmt.Errorf("cannot read the address of %s: %w", l.Address().Addr, err)
	}
	if err := socket.Listen(l.FD(), l.Address().Backlog); err != nil {
		return socket.ExplainInet(l.Address(), b.site.at, err)
	}
	duplicate, err := unix.FcntlInt(uintptr(l.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot keep a socket for %s: %w", l.Address().Addr, err)
	}
	s.made[l.Address().Name] = b.site.at
	return s.join(b.site, &memberSocket{ownership: makeFor(m), fd: duplicate, inode: b.inode, uid: b.uid})
}

func (s *Steering) shareMade(m InstanceKey, l *socket.Listener, host netip.AddrPort) (*binding, error) {
	if err := l.SetInetOptions(host.Addr()); err != nil {
		return nil, fmt.Errorf("cannot set up a socket for %s: %w", l.Address().Addr, err)
	}
	_, uid, err := identity(l.FD())
	if err != nil {
		return nil, err
	}
	b := &binding{InstanceKey: m, inode: l.Inode(), uid: uid}
	if b.site, err = siteAt(l.FD(), host); err != nil {
		return nil, fmt.Errorf("cannot set up a socket for %s: %w", l.Address().Addr, err)
	}
	decision, err := s.share(b, l.FD())
	if decision == Conflict {
		err = socket.ExplainInet(l.Address(), host, unix.EADDRINUSE)
	}
	return b, err
}

// Take gives a vacant socket (see Vacate) to an instance that binds the same address: that of the same Member, which it
// succeeds, or of another generation; or to the instance itself, if it has closed what it had there. It is a duplicate
// to put in the place of fd, the caller's duplicate of the socket that the instance binds. What waits in its queue is
// then not lost. It is -1 if there is none. The caller owns what it gets; the instance's listen makes it a live member
// again. Where the instance leaves it while another generation is selected that had it before, it is vacant there again.
// Where nothing of the selected generation lives, all who start get the same until one of them is Ready.
func (s *Steering) Take(m InstanceKey, fd int, sockaddr []byte) (int, error) {
	wanted, ok, err := siteWanted(fd, sockaddr)
	if err != nil || !ok {
		return -1, nil // Bind tells why
	}
	s.vacateClosed(m, wanted)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	g, seat := s.vacancy(m, wanted)
	if seat == nil {
		return -1, nil
	}
	left, err := seat.duplicateLike(fd)
	if err != nil {
		return -1, err
	}
	seat.promise(m, g.selected)
	s.bind(&binding{InstanceKey: m, site: wanted, inode: seat.inode, uid: seat.uid, asked: seat.asked, reuse: reuses(seat.fd)})
	return left, nil
}

// Left tells at little cost whether Take may have a socket for the instance.
func (s *Steering) Left(m InstanceKey, fd int, sockaddr []byte) bool {
	wanted, ok, err := siteWanted(fd, sockaddr)
	if err != nil || !ok {
		return false
	}
	if len(s.own(m, wanted)) > 0 {
		return true
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	_, seat := s.vacancy(m, wanted)
	return seat != nil
}

// reuses tells whether a socket has SO_REUSEADDR.
func reuses(fd int) bool {
	value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	return err == nil && value != 0
}

// vacateClosed lets the instance take up again what it has closed. The mutex is not held while it asks.
func (s *Steering) vacateClosed(m InstanceKey, at groupKey) {
	closed := slices.DeleteFunc(s.own(m, at), func(inode uint64) bool { return s.live(m, inode) })
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.abandon(closed, vacant)
}

// own are the member's sockets there, one that it was given and has not used included.
func (s *Steering) own(m InstanceKey, at groupKey) []uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	g := s.groups[at]
	if g == nil {
		return nil
	}
	var inodes []uint64
	for _, seat := range g.members {
		if seat.keptBy(m) {
			inodes = append(inodes, seat.inode)
		}
	}
	return inodes
}

// vacancy finds what has been left to the instance there, or nil.
func (s *Steering) vacancy(m InstanceKey, at groupKey) (*group, *memberSocket) {
	s.drain()
	g := s.groups[at]
	if g == nil {
		return nil, nil
	}
	return g, g.vacancy(m)
}

// duplicateLike makes the socket block or not, as the other does, which it is to replace.
func (s *memberSocket) duplicateLike(fd int) (int, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, flags)
	}
	duplicate := -1
	if err == nil {
		duplicate, err = unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("cannot hand a socket over: %w", err)
	}
	return duplicate, nil
}

// Own gives an instance its socket of an address that l reserves: listening, and a member of its group. Where one is
// vacant, it is that one with what waits in its queue, as for Take. The caller closes it when the instance was started.
func (s *Steering) Own(m InstanceKey, l *socket.Listener) (*socket.Listener, error) {
	fd, err := s.vacant(m, l)
	if err == nil && fd < 0 {
		a := l.Address()
		a.Addr = l.Bound()
		fd, err = s.Make(m, a)
	}
	if err != nil {
		return nil, err
	}
	inode, _, err := identity(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return socket.Adopt(l.Address(), fd, l.Bound(), inode), nil
}

func (s *Steering) vacant(m InstanceKey, l *socket.Listener) (fd int, err error) {
	at, err := siteOf(l.FD())
	if err != nil {
		return -1, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	g, seat := s.vacancy(m, at)
	if seat == nil {
		return -1, nil
	}
	if fd, err = unix.FcntlInt(uintptr(seat.fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, err
	}
	seat.promise(m, g.selected)
	if err := s.listenAgain(g, seat, m, l.Address().QueueLength()); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
