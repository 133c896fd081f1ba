package socket

import (
	"errors"
	"fmt"
	"os/user"
	"path"
	"strconv"

	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// File tells a file in the file system from another that has taken its path. The zero value is no file.
type File struct{ Dev, Ino uint64 }

// FileOf is the file that stat(2) has told of.
func FileOf(stat *unix.Stat_t) File {
	return File{Dev: uint64(stat.Dev), Ino: uint64(stat.Ino)}
}

func isSocket(stat *unix.Stat_t) bool { return stat.Mode&unix.S_IFMT == unix.S_IFSOCK }

func bindUnix(a Address) (*Listener, error) {
	uid, gid, err := a.owner()
	if err != nil {
		return nil, fmt.Errorf("cannot bind %s: %w", a.Addr, err)
	}
	if err := ClearPath(a); err != nil {
		return nil, err
	}
	l, err := newListener(a, unix.AF_UNIX)
	if err != nil {
		return nil, err
	}
	if err := l.openUnix(uid, gid); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// openUnix binds at the path itself, not at a hidden one that is renamed later: getsockname gives the app the path
// that was bound, and nginx and h2o find their sockets by it. A stream socket refuses everybody until it listens,
// which comes last, so that nobody gets in before mode and owner are right.
func (l *Listener) openUnix(uid, gid int) error {
	a := l.address
	if err := prepareMode(l.fd, a.Mode); err != nil {
		return fmt.Errorf("cannot set the mode of %s: %w", a.Addr, err)
	}
	if err := unix.Bind(l.fd, &unix.SockaddrUnix{Name: a.Addr}); err != nil {
		return explainUnix(a, err)
	}
	l.bound = a.Addr
	if err := l.claimPath(uid, gid); err != nil {
		return fmt.Errorf("cannot set mode and owner of %s: %w", a.Addr, err)
	}
	if !l.Stream() {
		return nil
	}
	if err := listen(l.fd, a.Backlog); err != nil {
		return fmt.Errorf("cannot listen on %s: %w", a.Addr, err)
	}
	return nil
}

func (l *Listener) claimPath(uid, gid int) error {
	if l.address.abstract() {
		return nil
	}
	var stat unix.Stat_t
	if err := unix.Lstat(l.address.Addr, &stat); err != nil {
		return err
	}
	l.path = FileOf(&stat)
	if err := SetMode(l.address.Addr, l.path, uid, gid, l.address.Mode); err != nil {
		return err
	}
	l.spare = keepSpare(l.address.Addr)
	return nil
}

// SetPathMode gives the file at a path, if that is the file id, the mode and the owner that the address asks for.
func SetPathMode(a Address, at string, id File) error {
	uid, gid, err := a.owner()
	if err == nil {
		err = SetMode(at, id, uid, gid, a.Mode)
	}
	if err != nil {
		return fmt.Errorf("cannot set mode and owner of %s: %w", at, err)
	}
	return nil
}

// reservePath is ReservePath where nobody serves the path.
func reservePath(a Address) (*Listener, error) {
	if err := ClearPath(a); err != nil {
		return nil, err
	}
	return ReservePath(a)
}

// ReservePath is what a Listener of an address with Steer is for a path: it has no file, which Steering.Own makes.
func ReservePath(a Address) (*Listener, error) {
	l, err := newListener(a, unix.AF_UNIX)
	if err != nil {
		return nil, err
	}
	l.bound = a.Addr
	return l, nil
}

// unlink removes the names of the path that are grace's, unless another socket, or none, has them by now.
func (l *Listener) unlink() error {
	names := []string{l.spare}
	if !l.passed {
		names = append(names, l.bound)
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, l.unlinkName(name))
	}
	return errors.Join(errs...)
}

func (l *Listener) unlinkName(name string) error {
	if l.path == (File{}) || !l.leads(name) {
		return nil
	}
	if err := unix.Unlink(name); err != nil {
		return fmt.Errorf("cannot remove %s: %w", name, err)
	}
	return nil
}

func (l *Listener) leads(name string) bool {
	var stat unix.Stat_t
	return unix.Lstat(name, &stat) == nil && FileOf(&stat) == l.path
}

// spareName is where a second name of a path is kept.
func spareName(bound string) string {
	return path.Join(path.Dir(bound), "."+path.Base(bound)+".grace")
}

// restorePath gives a removed path back to the socket, which php-fpm and tableflip apps remove when they end. What
// else has come into its place stays there.
func (l *Listener) restorePath() error {
	if l.spare == "" {
		return nil
	}
	if err := unix.Link(l.spare, l.bound); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// replaceUnix binds a new socket where this one was, which clearPath finds unanswered.
func (l *Listener) replaceUnix() error {
	if l.passed {
		return errShutDown
	}
	if l.address.abstract() {
		return errors.New("the dead socket keeps the name until all processes have closed it: restart grace and the app")
	}
	fresh, err := bindUnix(l.address)
	if err != nil {
		return err
	}
	if err := moveFD(fresh.fd, l.fd); err != nil {
		return errors.Join(err, fresh.Close())
	}
	l.path, l.spare = fresh.path, fresh.spare
	l.inode.Store(fresh.Inode())
	return ErrReplaced
}

// ClearPath removes a socket at the path of a unix Address that nobody serves any more. One that is served is an *InUseError, and
// another file an error too.
func ClearPath(a Address) error {
	var stat unix.Stat_t
	if a.abstract() || unix.Lstat(a.Addr, &stat) != nil {
		return nil
	}
	if !isSocket(&stat) {
		return fmt.Errorf("cannot bind %s: a file that is not a socket is there; move it away or choose another path", a.Addr)
	}
	err := a.knock()
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return fmt.Errorf("cannot bind %s: a socket is there, and grace may not check whether it is in use: %w", a.Addr, err)
	case errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		sockets, err := sockdiag.UnixHolding(a.Addr)
		return InUse(a, sockets, err)
	}
	if err := unkeep(a.Addr); err != nil { // a grace process was killed that had kept it
		return err
	}
	if err := unix.Unlink(a.Addr); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove the unused socket %s: %w", a.Addr, err)
	}
	return nil
}

func occupiedPath(a Address) (*InUseError, error) {
	sockets, err := sockdiag.UnixHolding(a.Addr)
	if err != nil || len(sockets) == 0 {
		return nil, err
	}
	inUse := (*InUseError)(nil)
	errors.As(InUse(a, sockets, nil), &inUse)
	return inUse, nil
}

// knock connects to the path. Only ECONNREFUSED means that nobody is there: a full queue is EAGAIN, a datagram socket
// in place of a stream one EPROTOTYPE.
func (a *Address) knock() error {
	fd, err := unix.Socket(unix.AF_UNIX, a.kind()|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: a.Addr})
}

// explainUnix adds what the user can do about a failed bind.
func explainUnix(a Address, err error) error {
	folder := path.Dir(a.Addr)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		sockets, err := sockdiag.UnixHolding(a.Addr)
		return InUse(a, sockets, err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("cannot bind %s: %w: create the directory %s first", a.Addr, err, folder)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("cannot bind %s: %w: uid %d may not write to %s", a.Addr, err, unix.Geteuid(), folder)
	}
	return fmt.Errorf("cannot bind %s: %w", a.Addr, err)
}

// owner gives the numbers of owner and group, -1 where none is asked for.
func (a *Address) owner() (uid, gid int, err error) {
	uid, err = number(a.Owner, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return -1, -1, fmt.Errorf("owner %s: %w", a.Owner, err)
	}
	gid, err = number(a.Group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return -1, -1, fmt.Errorf("group %s: %w", a.Group, err)
	}
	return uid, gid, nil
}

func number(name string, lookUp func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	id, err := lookUp(name)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(id)
}
