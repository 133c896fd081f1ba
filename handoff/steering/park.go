package steering

import (
	"errors"
	"fmt"

	"github.com/gracerun/grace/handoff/sibling"
	"golang.org/x/sys/unix"
)

// Park makes a socket at each address and path that is the instance's generation's, where nothing of that listens or has left a
// socket: new connections wait in its queue, and not in that of instances which were moved away, until an instance takes it, see
// Take. It is as if the instance had just gone.
func (s *Steering) Park(m InstanceKey) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	var errs []error
	for _, g := range s.sorted() {
		if g.Selected == m.Generation && !g.concerns(m.Generation) {
			errs = append(errs, s.park(g, m))
		}
	}
	for _, g := range s.paths {
		if g.Selected == m.Generation && len(g.Members) > 0 && !g.concerns(m.Generation) {
			errs = append(errs, s.parkPath(g, m))
		}
	}
	return errors.Join(errs...)
}

func (s *Steering) park(g *group, m InstanceKey) error {
	like := g.Members[0]
	fd, err := g.open()
	if err != nil {
		return fmt.Errorf("cannot keep %s open: %w", g.Key, err)
	}
	inode, uid, err := identity(fd)
	if err == nil {
		_ = sibling.Inherit(fd, like.FD) // what needs a right does not matter for who waits
		err = unix.Listen(fd, sibling.Backlog(like.FD))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot keep %s open: %w", g.Key, err), unix.Close(fd))
	}
	parked := &memberSocket{ownership: makeFor(m), FD: fd, Inode: inode, UID: uid, Asked: like.Asked}
	parked.State, parked.Orphan = vacant, true
	return s.join(g.Key, parked)
}

// parkPath makes one that gets the mode and the owner of the file at the path when it takes its place.
func (s *Steering) parkPath(g *pathGroup, m InstanceKey) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot keep %s open: %w", g.At, err)
	}
	parked := &memberSocket{ownership: makeFor(m), FD: fd, pathName: pathName{group: g}}
	parked.State, parked.Orphan = vacant, true
	if parked.Inode, _, err = identity(fd); err == nil {
		err = parked.bindHidden(fd, 0, s.uses)
	}
	if err == nil {
		parked.Seen, parked.Bound = 0, parked.File
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot keep %s open: %w", g.At, err), parked.end())
	}
	g.add(parked)
	return g.sweep()
}
