package steering

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gracerun/grace/handoff/sibling"
	"github.com/gracerun/grace/handoff/synfilter"
	"golang.org/x/sys/unix"
)

// Outsider is a listening socket of a process that grace has not started.
type Outsider struct {
	InstanceKey
	FD   int    // a duplicate, which the Steering owns
	Path string // of a unix socket: where its file is, as it was declared
}

// Include makes members of sockets that listen already: they get the new connections until another generation is selected, and all
// other sockets at their addresses become members beside them. All that listen at one address are to come in one call, as
// the kernel has numbered them. Sockets that are members already are closed. After an error nothing is a member.
func (s *Steering) Include(outsiders []Outsider) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	added, err := s.includeAll(outsiders)
	if err == nil {
		return s.refresh()
	}
	return errors.Join(err, s.giveBack(func(member *memberSocket) bool { return slices.Contains(added, member) }))
}

func (s *Steering) includeAll(outsiders []Outsider) (added []*memberSocket, err error) {
	fresh := map[*group]bool{}
	for _, o := range outsiders {
		if o.Path != "" {
			member, failed := s.includePath(o)
			if err = errors.Join(err, failed); member != nil {
				added = append(added, member)
			}
			continue
		}
		g, member, failed := s.include(o)
		if failed != nil {
			err = errors.Join(err, failed, unix.Close(o.FD))
			continue
		}
		if member == nil {
			err = errors.Join(err, unix.Close(o.FD))
			continue
		}
		added = append(added, member)
		fresh[g] = true
	}
	if err != nil {
		return added, err
	}
	for g := range fresh {
		if err := g.begin(); err != nil {
			return added, err
		}
	}
	return added, nil
}

// include gives nil for a member.
func (s *Steering) include(o Outsider) (*group, *memberSocket, error) {
	inode, uid, err := identity(o.FD)
	if err != nil {
		return nil, nil, err
	}
	if _, member := s.find(inode); member != nil {
		return nil, nil, nil
	}
	at, err := keyOf(o.FD)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot inspect a socket: %w", err)
	}
	asked, err := unix.GetsockoptInt(o.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err == nil && asked == 0 {
		err = unix.SetsockoptInt(o.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot steer %s: %w", at, err)
	}
	member := &memberSocket{ownership: makeFor(o.InstanceKey), FD: o.FD, Inode: inode, UID: uid, Asked: asked != 0, Multipath: isMultipath(o.FD)}
	g := s.groups[at]
	if g == nil {
		g = newGroup(at, member, s.stale)
	} else {
		g.add(member)
		g.touch()
	}
	s.enlist(g, member)
	return g, member, s.watch(member)
}

func isMultipath(fd int) bool {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && protocol == unix.IPPROTO_MPTCP
}

// begin gives a group its first program, and finds the numbers of its sockets. A socket that got SO_REUSEPORT after it
// began to listen is in no group of the kernel's before another one listens beside it (reuseport_add_sock in
// net/core/sock_reuseport.c): that one drops what comes, which is tried again, until the program is there.
func (g *group) begin() error {
	g.was = choice{}
	for number := range g.Members {
		g.was.selected = append(g.was.selected, number)
	}
	if err := g.attachBy(g.Members[0].FD, g.was, nil); err != nil {
		opener, err := g.open()
		if err != nil {
			return fmt.Errorf("cannot steer %s: %w", g.Key, err)
		}
		err = g.attachBy(opener, g.was, nil)
		if err := errors.Join(err, unix.Close(opener)); err != nil {
			return err
		}
	}
	return g.reorder()
}

// open gives a socket that listens at the address and takes no connections.
func (g *group) open() (fd int, err error) {
	fd, err = sibling.Bind(g.Members[0].FD)
	if err != nil {
		return -1, err
	}
	synfilter.Attach(fd)
	if err := unix.Listen(fd, 1); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Has tells whether the socket is a member.
func (s *Steering) Has(inode uint64) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.byInode[inode] != nil || s.findPath(inode) != nil
}

// GiveBack leaves the sockets of a generation that were included to their processes as they were before. Where others are at their
// addresses, these get connections no more.
func (s *Steering) GiveBack(generation int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	return s.giveBack(func(member *memberSocket) bool { return member.Generation == generation })
}

func (s *Steering) giveBack(which func(*memberSocket) bool) error {
	var errs []error
	for _, g := range s.sorted() {
		if slices.ContainsFunc(g.Members, which) {
			errs = append(errs, s.giveGroupBack(g, which))
		}
	}
	for _, g := range s.paths {
		if slices.ContainsFunc(g.Members, which) {
			errs = append(errs, g.giveBack(which))
		}
	}
	return errors.Join(errs...)
}

// giveGroupBack ends the others first: the program means them too. Without one the kernel chooses by a hash among the sockets of
// those that had asked for that.
func (s *Steering) giveGroupBack(g *group, which func(*memberSocket) bool) error {
	var errs []error
	for i := len(g.Members) - 1; i >= 0 && len(g.Members) > 1; i-- {
		if !which(g.Members[i]) {
			errs = append(errs, s.end(g, i))
		}
	}
	for len(g.Members) > 0 {
		member := g.Members[0]
		errs = append(errs, synfilter.Detach(member.FD))
		_ = unix.SetsockoptInt(member.FD, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0) // MPTCP keeps it: there is one socket
		if !member.Asked {
			errs = append(errs, unix.SetsockoptInt(member.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
		}
		_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, member.FD, nil)
		s.strike(g, member, len(g.Members) == 1)
		g.Members = g.Members[1:]
		errs = append(errs, unix.Close(member.FD))
	}
	return errors.Join(errs...)
}
