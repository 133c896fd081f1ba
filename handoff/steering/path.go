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
// exchanges two of the names in one step.
type pathGroup struct {
	at       string
	members  []*pathSeat
	selected int       // generation
	left     time.Time // when another generation was selected, or none
	away     bool      // the path leads to nobody any more
}

// pathSeat is one unix socket. It owns its descriptor, which is -1 until it listens, and its file.
type pathSeat struct {
	ownership
	group *pathGroup
	fd    int
	inode uint64
	bound string // what the kernel calls it, whatever its file is called now
	file  string // "" for none
	id    socket.File
	seen  unix.Timespec // when the file at the path was last changed before this one was bound
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

func (s *pathSeat) leads() bool {
	var stat unix.Stat_t
	return s.file != "" && unix.Lstat(s.file, &stat) == nil && socket.FileOf(&stat) == s.id
}

// bindHidden binds the socket, as the process with this umask would have done it.
func (s *pathSeat) bindHidden(fd int, umask uint32, used func(string) bool) error {
	if err := s.bindFree(fd, used); err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := errors.Join(s.identify(), unix.Fstat(fd, &stat)); err != nil {
		return err
	}
	mode := fs.FileMode(stat.Mode&^umask) & fs.ModePerm
	if err := socket.SetMode(s.file, s.id, int(stat.Uid), int(stat.Gid), mode); err != nil {
		return fmt.Errorf("cannot set mode and owner of %s: %w", s.file, err)
	}
	if unix.Lstat(s.group.at, &stat) == nil {
		s.seen = stat.Ctim
	}
	return nil
}

func (s *pathSeat) bindFree(fd int, used func(string) bool) (err error) {
	for number := s.Generation; number < s.Generation+hiddenNames; number++ {
		name := hiddenName(s.group.at, number)
		if used(name) || socket.ClearPath(socket.Address{Network: "unix", Addr: name}) != nil {
			continue
		}
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
			s.file = name
			return nil
		}
		if err != unix.EADDRINUSE {
			break
		}
	}
	return fmt.Errorf("cannot bind %s: %w", hiddenName(s.group.at, s.Generation), err)
}

func (s *pathSeat) identify() error {
	var stat unix.Stat_t
	if err := unix.Lstat(s.file, &stat); err != nil {
		return err
	}
	s.id = socket.FileOf(&stat)
	return nil
}

// end closes the socket, and removes its file.
func (s *pathSeat) end() error {
	err := socket.CloseFD(s.fd)
	if s.leads() {
		err = errors.Join(err, unix.Unlink(s.file))
	}
	return err
}

// chosen is the socket that is to have the path, or nil where all have retired. Where nothing is left of the selected
// generation, another is better than none, until that listens again.
func (g *pathGroup) chosen() *pathSeat {
	var chosen *pathSeat
	most := 1
	for _, s := range g.members {
		if rank := s.attracts(g.selected); rank >= most {
			chosen, most = s, rank
		}
	}
	if chosen != nil || len(g.members) == 0 {
		return chosen
	}
	if next := g.members[standIn(g.owners(), g.selected)]; next.state != retired {
		return next
	}
	return nil
}

func (g *pathGroup) has(generation int) bool {
	return slices.ContainsFunc(g.members, func(s *pathSeat) bool { return s.serves(generation) })
}

func (g *pathGroup) owners() []*ownership {
	var owners []*ownership
	for _, s := range g.members {
		owners = append(owners, &s.ownership)
	}
	return owners
}

// vacancy finds what has been left to the instance, or nil.
func (g *pathGroup) vacancy(m InstanceKey) *pathSeat {
	if i := vacancy(g.owners(), m, g.selected); i >= 0 {
		return g.members[i]
	}
	return nil
}

func (g *pathGroup) choose(generation int) {
	if g.selected != generation {
		g.selected, g.left = generation, time.Now()
	}
}

func (g *pathGroup) add(s *pathSeat) {
	for _, other := range g.members {
		if other.InstanceKey == s.InstanceKey && other.state == vacant {
			other.state = retired
		}
	}
	if len(g.members) == 0 {
		g.selected = s.Generation
	}
	g.members = append(g.members, s)
}

// retireDead gives up what was shut down: a unix socket never listens again, and turns all clients away.
func (g *pathGroup) retireDead() {
	for _, s := range g.members {
		if s.shut() {
			s.state, s.from, s.also = retired, nil, nil
		}
	}
}

// shut tells whether the socket was shut down: a poll of one that listens gives POLLRDHUP for that (unix_poll in
// net/unix/af_unix.c).
func (s *pathSeat) shut() bool {
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// lead gives the path to the chosen socket.
func (g *pathGroup) lead() error {
	next := g.chosen()
	if g.away || next == nil || next.file == g.at && next.leads() {
		return nil
	}
	if err := g.swap(next); err != nil {
		return fmt.Errorf("cannot lead %s to generation %d: %w", g.at, next.Generation, err)
	}
	return nil
}

// turnAway removes the path, unless another file has taken its place.
func (g *pathGroup) turnAway() error {
	g.away, g.left = true, time.Now()
	for _, s := range g.members {
		if s.file != g.at || !s.leads() {
			continue
		}
		s.file = ""
		if err := unix.Unlink(g.at); err != nil {
			return fmt.Errorf("cannot remove %s: %w", g.at, err)
		}
	}
	return nil
}

func (g *pathGroup) swap(next *pathSeat) error {
	var stat unix.Stat_t
	if unix.Lstat(g.at, &stat) == unix.ENOENT {
		if err := unix.Rename(next.file, g.at); err != nil {
			return err
		}
		next.file = g.at
		return nil
	}
	i := slices.IndexFunc(g.members, func(s *pathSeat) bool { return s.file == g.at && s.id == socket.FileOf(&stat) })
	if i < 0 {
		return errors.New("another file has taken its place: move that file away")
	}
	// An app that binds and then sets the mode has done so to the file that was at the path.
	if next.seen != stat.Ctim {
		if err := socket.SetMode(next.file, next.id, int(stat.Uid), int(stat.Gid), fs.FileMode(stat.Mode)&fs.ModePerm); err != nil {
			return err
		}
	}
	before := g.members[i]
	return swapNames(before, next)
}

// swapNames gives each the other's name. Where the file system cannot (NFS), the one before is left without any.
func swapNames(before, next *pathSeat) error {
	err := unix.Renameat2(unix.AT_FDCWD, next.file, unix.AT_FDCWD, before.file, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL {
		if err := unix.Rename(next.file, before.file); err != nil {
			return err
		}
		before.file, next.file = "", before.file
		return nil
	}
	if err == nil {
		before.file, next.file = next.file, before.file
	}
	return err
}

// sweep ends what has retired.
func (g *pathGroup) sweep() error {
	errs := []error{g.lead()}
	var kept []*pathSeat
	for _, s := range g.members {
		if s.state != retired || s.file == g.at && g.chosen() != nil {
			kept = append(kept, s)
			continue
		}
		errs = append(errs, s.end())
	}
	g.members = kept
	return errors.Join(errs...)
}

// queued counts what waits for the generation, and what may still be on its way.
func (g *pathGroup) queued(generation int, queues func() (map[string]int, error)) (sum int, err error) {
	for _, s := range g.members {
		if s.Generation != generation {
			continue
		}
		lengths, err := queues()
		if err != nil {
			return 0, err
		}
		sum += lengths[s.bound]
		if (g.away || generation != g.selected) && time.Since(g.left) < latecomers {
			sum++
		}
	}
	return sum, nil
}
