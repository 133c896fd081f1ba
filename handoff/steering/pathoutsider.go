package steering

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// Paths are the declared ones, as they were declared.
func (s *Steering) Paths() (paths []string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, g := range s.paths {
		paths = append(paths, g.At)
	}
	return paths
}

// includePath is include for a unix socket. It gives nil for a member.
func (s *Steering) includePath(o Outsider) (*memberSocket, error) {
	inode, _, err := identity(o.FD)
	if err != nil {
		return nil, errors.Join(err, unix.Close(o.FD))
	}
	g := s.declared(o.Path)
	if g == nil || s.findPath(inode) != nil {
		return nil, unix.Close(o.FD)
	}
	member := &memberSocket{ownership: makeFor(o.InstanceKey), FD: o.FD, Inode: inode, pathName: pathName{group: g, File: g.At, Free: true}}
	if !member.claim(o.FD) {
		return nil, errors.Join(fmt.Errorf("cannot steer %s: the socket has no file there", g.At), unix.Close(o.FD))
	}
	g.Kept = g.Kept || socket.IsKept(g.At) // by a process that was killed and has left no state
	g.listen(member)
	return member, nil
}

// giveBack lets the sockets have the path again, and ends the others there.
func (g *pathGroup) giveBack(which func(*memberSocket) bool) error {
	errs := []error{g.unkeep()}
	var others []*memberSocket
	for _, member := range g.Members {
		if !which(member) {
			others = append(others, member)
			continue
		}
		if member.File != g.At && member.leads() {
			errs = append(errs, unix.Rename(member.File, g.At))
		}
		errs = append(errs, unix.Close(member.FD))
	}
	for _, member := range slices.Concat(others, g.Hidden) {
		errs = append(errs, member.end())
	}
	g.Members, g.Hidden = nil, nil
	return errors.Join(errs...)
}

// Unkept tells of the paths that a process which is about to end may remove, though they are not its own by now. That cannot be
// prevented, for the reasons in the error.
func (s *Steering) Unkept() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var errs []error
	for _, g := range s.paths {
		if g.keeper != nil {
			errs = append(errs, g.keeper.Why)
		}
	}
	return errors.Join(errs...)
}

// ownPath is Own for a path. What comes after another socket there gets its mode and owner, unless the address has its own.
func (s *Steering) ownPath(m InstanceKey, l *socket.Listener) (*socket.Listener, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	g := s.declared(l.Bound())
	if g == nil {
		return nil, fmt.Errorf("cannot steer %s: the path is not declared", l.Bound())
	}
	g.retireDead()
	member, fd, err := handOver(m, g, (*memberSocket).duplicate)
	if err == nil && member == nil {
		if fd, err = s.makePath(m, g, l.Address()); err == nil {
			return l.With(fd)
		}
	}
	if err != nil {
		return nil, err
	}
	member.hold(m)
	if err := g.sweep(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return l.With(fd)
}

// locate finds the names of the files anew, as a predecessor that was killed may have changed them last, and whether the path is kept.
func (g *pathGroup) locate() {
	all, names := slices.Concat(g.Members, g.Hidden, g.gone), []string{g.At}
	for _, s := range all {
		names = append(names, s.File)
	}
	for _, s := range all {
		for _, name := range names {
			if moved := (&pathName{File: name, Device: s.Device, FileInode: s.FileInode}); s.file() != (socket.File{}) && moved.leads() {
				s.File = name
				break
			}
		}
		g.Kept = g.Kept || s.Free && socket.IsKept(g.At)
	}
}

func (s *Steering) makePath(m InstanceKey, g *pathGroup, a socket.Address) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot create a socket for %s: %w", g.At, err)
	}
	inode, _, err := identity(fd)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	member := &memberSocket{ownership: makeFor(m), FD: fd, Inode: inode, pathName: pathName{group: g, Free: true}}
	if err := s.bindOwn(member, a); err != nil {
		return -1, errors.Join(err, member.end())
	}
	g.listen(member)
	if err := g.sweep(); err != nil {
		return -1, err
	}
	return member.duplicate()
}

func (s *Steering) bindOwn(member *memberSocket, a socket.Address) error {
	if err := s.bindAlone(member); err != nil {
		return err
	}
	member.Bound = member.File
	if err := socket.SetPathMode(a, member.File, member.file()); err != nil {
		return err
	}
	if a.Mode != 0 || a.Owner != "" || a.Group != "" {
		var stat unix.Stat_t
		if unix.Lstat(member.group.At, &stat) == nil {
			member.Seen = stat.Ctim.Nano()
		}
	}
	if err := unix.Listen(member.FD, a.QueueLength()); err != nil {
		return fmt.Errorf("cannot listen on %s: %w", member.group.At, err)
	}
	return nil
}

// bindAlone binds at the path itself where nothing of the app is there.
func (s *Steering) bindAlone(member *memberSocket) error {
	g := member.group
	if len(g.Members) > 0 {
		return member.bindHidden(member.FD, 0o077, s.uses)
	}
	if err := socket.ClearPath(socket.Address{Network: "unix", Addr: g.At}); err != nil {
		return err
	}
	if err := unix.Bind(member.FD, &unix.SockaddrUnix{Name: g.At}); err != nil {
		return fmt.Errorf("cannot bind %s: %w", g.At, err)
	}
	member.File = g.At
	return member.identify()
}
