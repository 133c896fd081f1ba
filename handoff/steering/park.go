package steering

import (
	"errors"
	"fmt"

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
		copyOptions(like.FD, fd)
		err = unix.Listen(fd, backlogOf(like.FD))
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

// backlogOf reads what a listening socket was given (tcp_get_info in net/ipv4/tcp.c).
func backlogOf(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Sacked == 0 {
		return unix.SOMAXCONN
	}
	return int(info.Sacked)
}

// copied are the options that an app sets on a listener for the connections it accepts, which inherit them.
var copied = []struct{ level, name int }{
	{unix.IPPROTO_IP, unix.IP_TOS}, // sets SO_PRIORITY too (ip(7))
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_MARK},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
}

// copyOptions copies what can be copied: one that needs a right, or is of another family, does not matter for who waits.
func copyOptions(from, to int) {
	for _, option := range copied {
		if value, err := unix.GetsockoptInt(from, option.level, option.name); err == nil && value != 0 {
			_ = unix.SetsockoptInt(to, option.level, option.name, value)
		}
	}
	locked, _ := unix.GetsockoptInt(from, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	for flag, buffer := range map[int]int{1: unix.SO_SNDBUF, 2: unix.SO_RCVBUF} { // SOCK_SNDBUF_LOCK and SOCK_RCVBUF_LOCK: set by the app
		if value, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, buffer); err == nil && locked&flag != 0 {
			_ = unix.SetsockoptInt(to, unix.SOL_SOCKET, buffer, value/2) // the kernel doubles what it is given (socket(7))
		}
	}
}
