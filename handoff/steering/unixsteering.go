package steering

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// Declare makes unix stream sockets that are bound to this path steered, too: at a cutover the path gets the socket of
// another generation. The path is absolute. It is to be called before the first Bind.
func (s *Steering) Declare(path string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.paths = append(s.paths, &pathGroup{At: path})
}

// Declared tells whether the path is one that was declared, by whatever name.
func (s *Steering) Declared(path string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.declared(path) != nil
}

func (s *Steering) declared(path string) *pathGroup {
	i := slices.IndexFunc(s.paths, func(g *pathGroup) bool { return sameFile(g.At, path) })
	if i < 0 {
		return nil
	}
	return s.paths[i]
}

// BindPath is Bind for a path, as an absolute one: if the answer is true, the socket was bound beside it, with the mode
// that the umask leaves, and the app's bind is to be answered with success. Else a unix.Errno in the error is to be the
// answer, and without one bind is to go on.
func (s *Steering) BindPath(m InstanceKey, fd int, path string, umask uint32) (bool, error) {
	if may, err := mayListen(fd); err != nil || !may {
		return false, err
	}
	inode, _, err := identity(fd)
	if err != nil {
		return false, err
	}
	if s.pathTaken(m, path, inode) {
		return false, fmt.Errorf("cannot bind %s: %w: the app has another socket there", path, unix.EADDRINUSE)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	g := s.declared(path)
	if g == nil {
		return false, nil
	}
	if err := g.heldByOthers(path); err != nil {
		return false, err
	}
	for _, other := range s.paths {
		other.unhide(inode) // an earlier bind of the socket has failed
	}
	member := &memberSocket{ownership: makeFor(m), FD: -1, Inode: inode, pathName: pathName{group: g, File: g.At}}
	g.Hidden = append(g.Hidden, member)
	if len(g.Members) == 0 {
		return false, nil
	}
	member.File = ""
	if err := member.bindHidden(fd, umask, s.uses); err != nil {
		g.unhide(inode)
		return false, errors.Join(err, member.end())
	}
	return true, nil
}

// heldByOthers says who has the path while nobody of the app does. Where its file is gone, the path is free.
func (g *pathGroup) heldByOthers(path string) error {
	var stat unix.Stat_t
	if len(g.Members) > 0 || unix.Lstat(path, &stat) != nil {
		return nil
	}
	sockets, err := sockdiag.UnixHolding(path)
	if err != nil || len(sockets) == 0 {
		return nil // the kernel's answer will do
	}
	return socket.InUse(socket.Address{Network: "unix", Addr: path}, sockets, nil)
}

// mayListen tells whether it is a stream socket that a bind can put at a path: of one that is bound already the kernel
// refuses it.
func mayListen(fd int) (bool, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false, err
	}
	bound, err := isBound(fd)
	return !bound, err
}

// pathTaken is what taken is for addresses. Of a bind that went on, the kernel knows whether it was good.
func (s *Steering) pathTaken(m InstanceKey, path string, inode uint64) bool {
	rivals := s.pathRivals(m, path, inode)
	if slices.ContainsFunc(rivals, func(inode uint64) bool { return s.live(m, inode) }) {
		return true
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.abandon(rivals, vacant)
	return false
}

func (s *Steering) pathRivals(m InstanceKey, path string, inode uint64) []uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var rivals []uint64
	for _, member := range s.pathSockets() {
		bound := member.file() != socket.File{}
		if member.heldBy(m) && len(member.Also) == 0 && member.Inode != inode && bound && member.State == serving && sameFile(member.group.At, path) {
			rivals = append(rivals, member.Inode)
		}
	}
	return rivals
}

// pathSockets are all, those that do not listen yet too.
func (s *Steering) pathSockets() []*memberSocket {
	var sockets []*memberSocket
	for _, g := range s.paths {
		sockets = slices.Concat(sockets, g.Hidden, g.Members)
	}
	return sockets
}

func (s *Steering) findPath(inode uint64) *memberSocket {
	sockets := s.pathSockets()
	i := slices.IndexFunc(sockets, func(member *memberSocket) bool { return member.Inode == inode })
	if i < 0 {
		return nil
	}
	return sockets[i]
}

// uses tells whether a name is that of a socket here.
func (s *Steering) uses(name string) bool {
	return slices.ContainsFunc(s.pathSockets(), func(member *memberSocket) bool { return member.File == name || member.Bound == name })
}

// Keeps tells whether the path is that of a steered socket, of whichever generation, or was when that was bound: an
// unlink by an app is to be answered with success then, and not to be made.
func (s *Steering) Keeps(path string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if g := s.declared(path); g != nil {
		return len(g.Members) > 0
	}
	named := func(member *memberSocket) bool { return sameFile(member.File, path) || sameFile(member.Bound, path) }
	return slices.ContainsFunc(s.pathSockets(), named)
}

// TakePath is Take for a path.
func (s *Steering) TakePath(m InstanceKey, fd int, path string) (int, error) {
	if may, err := mayListen(fd); err != nil || !may {
		return -1, nil // BindPath tells why
	}
	at := func() place { return s.pathAt(path) }
	s.vacateClosed(m, at)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	_, left, err := handOver(m, at(), (*memberSocket).duplicate)
	return left, err
}

// pathAt is the declared path as it is now, or nil.
func (s *Steering) pathAt(path string) place {
	g := s.declared(path)
	if g == nil {
		return nil
	}
	g.retireDead()
	return g
}

// listenPath is listen for a socket that was bound to a path. It owns fd.
func (s *Steering) listenPath(member *memberSocket, m InstanceKey, fd, backlog int) error {
	if !member.claim(fd) {
		return errors.Join(ErrNotSteered, unix.Close(fd))
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return errors.Join(fmt.Errorf("cannot listen on %s: %w", member.group.At, err), unix.Close(fd))
	}
	if member.FD >= 0 {
		member.hold(m)
		return errors.Join(unix.Close(fd), member.group.sweep())
	}
	member.FD = fd
	member.group.listen(member)
	return member.group.sweep()
}

// claim tells whether the socket is bound: the app's own bind may have failed.
func (s *memberSocket) claim(fd int) bool {
	name, err := unix.Getsockname(fd)
	at, ok := name.(*unix.SockaddrUnix)
	if err != nil || !ok || at.Name == "" || at.Name[0] == '@' { // so package unix calls none
		return false
	}
	s.Bound = at.Name
	return s.file() != socket.File{} || s.identify() == nil
}

func (s *Steering) sweepPaths() error {
	var errs []error
	for _, g := range s.paths {
		errs = append(errs, g.sweep())
	}
	return errors.Join(errs...)
}

// abandonPath is for a socket that nobody has any more.
func abandonPath(member *memberSocket, state socketState) {
	if member.FD < 0 {
		dropPath(member)
		return
	}
	member.group.abandon(member, state)
}

// dropHidden is for the sockets of an instance that do not listen yet.
func (s *Steering) dropHidden(m InstanceKey) {
	for _, g := range s.paths {
		for _, member := range slices.Clone(g.Hidden) {
			if member.heldBy(m) {
				dropPath(member)
			}
		}
	}
}

// dropPath is for a socket that does not listen. The path itself is the app's as long as nothing listens there.
func dropPath(member *memberSocket) {
	member.group.unhide(member.Inode)
	if member.File != member.group.At {
		_ = member.end() // what stays is removed by whoever wants the name
	}
}

// Accepted counts the connections that the processes have accepted at the generation's paths and not closed yet, as
// Connections does.
func (s *Steering) Accepted(generation int, pids []int) (int, error) {
	names := s.boundNames(generation)
	if len(names) == 0 {
		return 0, nil
	}
	return sockdiag.UnixConnections(pids, names)
}

func (s *Steering) boundNames(generation int) map[string]bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	names := make(map[string]bool)
	for _, member := range s.pathSockets() {
		if len(of(generation, member.members())) > 0 && member.Bound != "" {
			names[member.Bound] = true
		}
	}
	return names
}
