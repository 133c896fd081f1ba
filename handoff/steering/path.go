package steering

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// pathGroup is the unix sockets of one path: one of them has it, and the others have hidden names beside it. A cutover
// exchanges two of the names in one step. A successor of this process gets the exported fields.
type pathGroup struct {
	At string
	memberList
	Hidden []*memberSocket // those that do not listen yet, and have no descriptor here
	Kept   bool            `json:",omitzero"` // the path, by this process or its predecessor
	keeper *socket.PathKeeper
	gone   []*memberSocket // those that have ended together with a predecessor that was killed
}

// pathName is what a unix socket has beside what all have. Its file is the socket's.
type pathName struct {
	group     *pathGroup
	Bound     string `json:",omitzero"` // what the kernel calls it, whatever its file is called now
	File      string `json:",omitzero"` // "" for none
	Device    uint64 `json:",omitzero"` // of the file, as FileInode
	FileInode uint64 `json:",omitzero"`
	Seen      int64  `json:",omitzero"` // ns since 1970: when the file at the path was last changed before this one was bound
	Free      bool   `json:",omitzero"` // nothing keeps its process from removing the path: it is not captured
}

// hiddenNames is how many are tried, and latecomers how long a connection can be on its way to a socket that has just
// lost the path: connect looks the path up first, and queues afterwards.
const (
	hiddenNames = 100
	latecomers  = 250 * time.Millisecond
)

// hiddenName is short, as a path has no more than 107 bytes.
func hiddenName(at string, number int) string {
	return fmt.Sprintf("%s/.%s.%d", path.Dir(at), path.Base(at), number)
}

// sameFile tells whether two names are one in one folder.
func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	if path.Base(a) != path.Base(b) {
		return false
	}
	inA, err := os.Stat(path.Dir(a))
	if err != nil {
		return false
	}
	inB, err := os.Stat(path.Dir(b))
	return err == nil && os.SameFile(inA, inB)
}

// file is the socket's file. The zero value is none.
func (n *pathName) file() socket.File { return socket.File{Dev: n.Device, Ino: n.FileInode} }

func (n *pathName) leads() bool {
	var stat unix.Stat_t
	return n.File != "" && unix.Lstat(n.File, &stat) == nil && socket.FileOf(&stat) == n.file()
}

func (n *pathName) identify() error {
	var stat unix.Stat_t
	if err := unix.Lstat(n.File, &stat); err != nil {
		return err
	}
	n.Device, n.FileInode = uint64(stat.Dev), stat.Ino
	return nil
}

// bindHidden binds the socket, as the process with this umask would have done it.
func (s *memberSocket) bindHidden(fd int, umask uint32, used func(string) bool) error {
	if err := s.bindFree(fd, used); err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := errors.Join(s.identify(), unix.Fstat(fd, &stat)); err != nil {
		return err
	}
	mode := fs.FileMode(stat.Mode&^umask) & fs.ModePerm
	if err := socket.SetMode(s.File, s.file(), int(stat.Uid), int(stat.Gid), mode); err != nil {
		return fmt.Errorf("cannot set mode and owner of %s: %w", s.File, err)
	}
	if unix.Lstat(s.group.At, &stat) == nil && !s.group.outside() {
		s.Seen = stat.Ctim.Nano()
	}
	return nil
}

// outside tells whether the path is that of a process which has not bound it for the app: what comes after it gets its mode and owner.
func (g *pathGroup) outside() bool {
	return slices.ContainsFunc(g.Members, func(s *memberSocket) bool { return s.Free && s.File == g.At })
}

func (s *memberSocket) bindFree(fd int, used func(string) bool) (err error) {
	for number := s.Generation; number < s.Generation+hiddenNames; number++ {
		name := hiddenName(s.group.At, number)
		if used(name) || socket.ClearPath(socket.Address{Network: "unix", Addr: name}) != nil {
			continue
		}
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
			s.File = name
			return nil
		}
		if err != unix.EADDRINUSE {
			break
		}
	}
	return fmt.Errorf("cannot bind %s: %w", hiddenName(s.group.At, s.Generation), err)
}

// end closes the socket, and removes its file.
func (s *memberSocket) end() error {
	err := socket.CloseFD(s.FD)
	if s.leads() {
		err = errors.Join(err, unix.Unlink(s.File))
	}
	return err
}

func (g *pathGroup) String() string { return g.At }

func (g *pathGroup) socket(m InstanceKey, inode uint64) SteeredSocket {
	return SteeredSocket{InstanceKey: m, Path: g.At, Inode: inode}
}

func (g *pathGroup) touch() {} // each apply looks at all paths

// choose leads the path to one generation: the selected one if that listens.
func (g *pathGroup) choose(to Split) {
	if !g.has(to.Generation) {
		to.Generation = to.Beside
	}
	g.steer(Split{Generation: to.Generation})
}

// leader is the socket that is to have the path, the newest of the chosen ones, or nil where all have retired.
func (g *pathGroup) leader() *memberSocket {
	chosen := g.choice().selected
	switch {
	case len(chosen) == 0:
		return nil
	case g.Members[chosen[0]].attracts(g.Selected) > 0:
		return g.Members[chosen[len(chosen)-1]]
	case g.Members[chosen[0]].State == retired:
		return nil
	}
	return g.Members[chosen[0]]
}

// listen takes in a socket that was hidden.
func (g *pathGroup) listen(s *memberSocket) {
	g.unhide(s.Inode)
	if len(g.Members) == 0 {
		g.Selected = s.Generation
	}
	g.add(s)
}

func (g *pathGroup) unhide(inode uint64) {
	g.Hidden = slices.DeleteFunc(g.Hidden, func(s *memberSocket) bool { return s.Inode == inode })
}

// retireDead gives up what was shut down: a unix socket never listens again, and turns all clients away.
func (g *pathGroup) retireDead() {
	for _, s := range g.Members {
		if s.shut() {
			s.State, s.From, s.Also = retired, nil, nil
		}
	}
}

// shut tells whether the socket was shut down: a poll of one that listens gives POLLRDHUP for that (unix_poll in
// net/unix/af_unix.c).
func (s *memberSocket) shut() bool {
	fds := []unix.PollFd{{Fd: int32(s.FD), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// lead gives the path to the chosen socket.
func (g *pathGroup) lead() error {
	next := g.leader()
	if g.away || next == nil || next.File == g.At && next.leads() {
		return nil
	}
	if err := g.swap(next); err != nil {
		return fmt.Errorf("cannot switch %s to generation %d: %w", g.At, next.Generation, err)
	}
	return nil
}

// turnAway removes the path, unless another file has taken its place.
func (g *pathGroup) turnAway() error {
	g.away, g.Replaced = true, time.Now()
	if err := g.unkeep(); err != nil {
		return err
	}
	for _, s := range g.Members {
		if s.File != g.At || !s.leads() {
			continue
		}
		s.File = ""
		if err := unix.Unlink(g.At); err != nil {
			return fmt.Errorf("cannot remove %s: %w", g.At, err)
		}
	}
	return nil
}

// swap leaves the path unkept for a moment: what is kept cannot be renamed.
func (g *pathGroup) swap(next *memberSocket) error {
	if err := g.unkeep(); err != nil {
		return err
	}
	return g.swapUnkept(next)
}

func (g *pathGroup) swapUnkept(next *memberSocket) error {
	var stat unix.Stat_t
	if unix.Lstat(g.At, &stat) == unix.ENOENT {
		if err := unix.Rename(next.File, g.At); err != nil {
			return err
		}
		next.File = g.At
		return nil
	}
	i := slices.IndexFunc(g.Members, func(s *memberSocket) bool { return s.File == g.At && s.file() == socket.FileOf(&stat) })
	if i < 0 {
		return errors.New("another file has taken its place: move that file away")
	}
	// An app that binds and then sets the mode has done so to the file that was at the path.
	if next.Seen != stat.Ctim.Nano() {
		if err := socket.SetMode(next.File, next.file(), int(stat.Uid), int(stat.Gid), fs.FileMode(stat.Mode)&fs.ModePerm); err != nil {
			return err
		}
	}
	before := g.Members[i]
	return swapNames(before, next)
}

// swapNames gives each the other's name. Where the file system cannot (NFS), the one before is left without any.
func swapNames(before, next *memberSocket) error {
	err := unix.Renameat2(unix.AT_FDCWD, next.File, unix.AT_FDCWD, before.File, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL {
		if err := unix.Rename(next.File, before.File); err != nil {
			return err
		}
		before.File, next.File = "", before.File
		return nil
	}
	if err == nil {
		before.File, next.File = next.File, before.File
	}
	return err
}

// sweep ends what has retired.
func (g *pathGroup) sweep() error {
	errs := []error{g.lead()}
	var kept []*memberSocket
	for _, s := range g.Members {
		if s.State != retired || s.File == g.At && g.leader() != nil {
			kept = append(kept, s)
			continue
		}
		errs = append(errs, s.end())
	}
	g.Members = kept
	return errors.Join(errors.Join(errs...), g.keep())
}

// keep keeps the path as long as a process lives that may remove it when it ends, and does not have it.
func (g *pathGroup) keep() error {
	leader := g.leader()
	threatens := func(s *memberSocket) bool { return s.Free && s != leader && s.State != retired }
	if g.away || leader == nil || !slices.ContainsFunc(g.Members, threatens) {
		return g.unkeep()
	}
	if g.keeper == nil {
		g.keeper, g.Kept = socket.KeepPath(g.At, g.Kept), true
	}
	return nil
}

func (g *pathGroup) unkeep() error {
	if !g.Kept {
		return nil
	}
	if g.keeper == nil {
		g.keeper = socket.KeepPath(g.At, true)
	}
	err := g.keeper.Close()
	g.keeper, g.Kept = nil, false
	return err
}

func (g *pathGroup) waiting(s *memberSocket, q *queueLengths) (int, error) {
	lengths, err := q.unix()
	return lengths[s.Bound], err
}

// late counts one for each socket: nobody can see who is on the way.
func (g *pathGroup) late(generation int, _ *queueLengths) (int, error) {
	if !g.away && generation == g.Selected || time.Since(g.Replaced) >= latecomers {
		return 0, nil
	}
	return len(g.numbers(func(s *memberSocket) bool { return s.Generation == generation })), nil
}
