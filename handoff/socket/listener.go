package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/gracerun/grace/handoff/internal/inherited"
	"github.com/gracerun/grace/handoff/synfilter"
	"golang.org/x/sys/unix"
)

// Listener is a bound socket that grace holds for its apps: a raw descriptor, close-on-exec. It blocks,
// as those of systemd do: many servers call accept at once and take EAGAIN for the end; those that want it otherwise
// set the flag themselves, all but nginx, for which its dialect does it.
//
// It is never a net.Listener or an os.File: Go's poller would wake grace for every connection that the app accepts
// from the shared description, and some calls would switch the description to blocking for the app too.
//
// The Listener owns its descriptor until Close. Its methods may be called from several goroutines at once;
// Close after all others.
type Listener struct {
	address Address
	fd      int
	change  sync.Mutex // of what is behind fd
	letGo   bool
	away    bool // see TurnAway
	bound   string
	inode   atomic.Uint64
	path    File
	spare   string // a second, hidden name of the path
	passed  bool   // made by grace's service manager, which owns the path
}

// Bind makes the socket that a describes, and for a stream network listens on it. One of the network fd is there
// already; its Address then has the network and address that it is bound to.
//
// An address that another process has gives an *InUseError. A unix path with a socket on which nobody answers is
// replaced; any other file stays untouched, and is an error. A host name is looked up once, for at
// most 5 seconds, and its first IPv4 address taken, or the first one.
func Bind(a Address) (*Listener, error) {
	switch {
	case a.Network == inherited.Network:
		return bindPassed(a)
	case a.Unix() && a.Steer:
		return reservePath(a)
	case a.Unix():
		return bindUnix(a)
	}
	return bindInet(a)
}

// FD is the descriptor, open until Close and owned by the Listener.
func (l *Listener) FD() int { return l.fd }

// Name is the name of the address.
func (l *Listener) Name() string { return l.address.Name }

// Address is what the socket was bound from, or the address of one that was passed to grace.
func (l *Listener) Address() Address { return l.address }

// Network is the network of the address.
func (l *Listener) Network() string { return l.address.Network }

// Bound is the address the socket really has: IP:port with the port the kernel chose for :0, a path, or @name.
func (l *Listener) Bound() string { return l.bound }

// Passed tells whether grace's service manager has made the socket.
func (l *Listener) Passed() bool { return l.passed }

// Stream tells whether connections are accepted from the socket.
func (l *Listener) Stream() bool { return l.address.Stream() }

// Inode is the socket's number in /proc/PID/fd and in the kernel's socket tables.
func (l *Listener) Inode() uint64 { return l.inode.Load() }

// Close closes the descriptor, and removes a unix path if it still leads to this socket and is grace's.
// Apps that were given the socket keep it. A second Close does nothing.
func (l *Listener) Close() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	return errors.Join(l.unlink(), unix.Close(fd))
}

// TurnAway keeps new connections from the socket, for all who have it, and reports whether it could. Those of TCP that begin from now on wait, and
// are refused once the socket is closed; a unix path is removed. What is in the queue, and what has begun, stays. A socket that was passed to
// grace goes on, for whoever is passed it next, as do datagrams, the abstract namespace, and a socket with a filter of the app's own.
// Revive gives ErrLetGo from then on.
func (l *Listener) TurnAway() (bool, error) {
	l.change.Lock()
	defer l.change.Unlock()
	switch {
	case l.letGo || l.fd < 0 || l.passed || !l.Stream() || l.address.abstract():
		return false, nil
	case l.address.Unix():
		l.away = true
		return true, l.unlinkName(l.bound)
	}
	l.away = synfilter.Attach(l.fd)
	return l.away, nil
}

// LetGo leaves the socket to the apps that have it: who connects is refused once they have closed it. FD stays, for those who
// still ask by the number, but leads to a socket that is bound to nothing; Inode stays that of the apps' socket. A unix path is
// there until Close. Revive gives ErrLetGo from then on.
func (l *Listener) LetGo() error {
	l.change.Lock()
	defer l.change.Unlock()
	if l.letGo || l.fd < 0 {
		return nil
	}
	idle, err := unix.Socket(l.address.family(), l.address.kind()|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot let go of the socket of %s: %w", l.bound, err)
	}
	if err := moveFD(idle, l.fd); err != nil {
		return errors.Join(fmt.Errorf("cannot let go of the socket of %s: %w", l.bound, err), unix.Close(idle))
	}
	l.letGo = true
	return nil
}

// Held reports whether FD leads to the socket: until LetGo, or Close.
func (l *Listener) Held() bool {
	l.change.Lock()
	defer l.change.Unlock()
	return !l.letGo && l.fd >= 0
}

// Leave closes the descriptor, as Close does, but leaves the unix path to the apps that have the socket.
func (l *Listener) Leave() error {
	l.path = File{}
	var err error
	if l.spare != "" && l.fd >= 0 {
		err = unix.Unlink(l.spare)
	}
	return errors.Join(err, l.Close())
}

// ErrReplaced says that an address has a listener again, but that the instances which run hold the dead one.
var ErrReplaced = errors.New("an app has shut down the socket, and grace has opened a new one; " +
	"only instances started from now on get it")

// ErrLetGo says that the socket is the apps' alone.
var ErrLetGo = errors.New("the socket was left to the apps that have it")

// Revive repairs what an app has done to the socket that all share; if nothing is wrong, it does nothing.
//
// A stream socket that was shut down listens again. The connections that waited in its queue are lost: the kernel has
// reset them already. A unix socket that was shut down never listens again: Revive binds a new one at the same path
// and under the same FD, with another Inode, and returns ErrReplaced. In the abstract namespace that fails, since the
// dead socket keeps the name, and with a socket that was passed to grace.
//
// A unix path that was removed leads to the socket again, if grace could give it a second name at Bind.
func (l *Listener) Revive() error {
	l.change.Lock()
	defer l.change.Unlock()
	if l.letGo || l.away {
		return ErrLetGo
	}
	err := l.revive()
	if err != nil && err != ErrReplaced {
		return fmt.Errorf("cannot listen on %s again: %w", l.bound, err)
	}
	return err
}

func (l *Listener) revive() error {
	switch {
	case !l.Stream() || !hungUp(l.fd):
		return l.restorePath()
	case l.address.Unix():
		return l.replaceUnix()
	}
	return l.reviveInet()
}

// With is a Listener of the same address by another socket, which listens there. It owns the descriptor, and closes it if
// there is an error.
func (l *Listener) With(fd int) (*Listener, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot look at a socket of %s: %w", l.bound, err), unix.Close(fd))
	}
	other := &Listener{address: l.address, fd: fd, bound: l.bound}
	other.inode.Store(stat.Ino)
	return other, nil
}

// listen makes a bound socket listen with the backlog of an Address.
func listen(fd, backlog int) error { return unix.Listen(fd, Address{Backlog: backlog}.QueueLength()) }

// QueueLength is the Backlog as listen(2) takes it: -1 for the longest queue that the kernel allows, net.core.somaxconn.
func (a Address) QueueLength() int {
	if a.Backlog == 0 {
		return -1
	}
	return a.Backlog
}

func (a *Address) kind() int {
	if a.Stream() {
		return unix.SOCK_STREAM
	}
	return unix.SOCK_DGRAM
}

func (a *Address) family() int {
	if a.Unix() {
		return unix.AF_UNIX
	}
	return unix.AF_INET
}

func newListener(a Address, family int) (*Listener, error) {
	fd, err := unix.Socket(family, a.kind()|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot create a socket for %s: %w", a.Addr, err)
	}
	if err := a.setSocketOptions(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set up a socket for %s: %w", a.Addr, err), unix.Close(fd))
	}
	return (&Listener{address: a}).With(fd)
}

// moveFD gives the file of one descriptor to another.
func moveFD(from, to int) error {
	if err := unix.Dup3(from, to, unix.O_CLOEXEC); err != nil {
		return err
	}
	return unix.Close(from)
}

// hungUp tells whether a listener was shut down: TCP leaves the state LISTEN and says HUP, a unix socket RDHUP.
func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// prepareMode makes bind create the path closed: Linux takes the file's mode from the socket's own inode, less the
// umask (unix_bind_bsd in net/unix/af_unix.c). The umask itself belongs to the whole process.
func prepareMode(fd int, mode fs.FileMode) error {
	if mode == 0 {
		return nil
	}
	return unix.Fchmod(fd, 0)
}

// SetMode sets owner, group, -1 for as it is, and mode, 0 for as it is, of the socket at a path, if that is the file id. It
// works on an O_PATH descriptor, so that a link put in the path's place meanwhile is not followed.
func SetMode(path string, id File, uid, gid int, mode fs.FileMode) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if FileOf(&stat) != id || !isSocket(&stat) {
		return fmt.Errorf("another file has taken its place")
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if mode == 0 {
		return nil
	}
	// fchmod refuses an O_PATH descriptor (EBADF); its name under /proc is the way that works on every kernel.
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode))
}

// keepSpare gives the socket a second name next to its path, from which the path can be made again, and returns it.
// Where links are not allowed there is none: that only leaves the path without this protection.
func keepSpare(bound string) string {
	spare := spareName(bound)
	var stat unix.Stat_t
	if unix.Lstat(spare, &stat) == nil && isSocket(&stat) {
		_ = unix.Unlink(spare) // what a killed grace has left; if it stays, Link says so
	}
	if unix.Link(bound, spare) != nil {
		return ""
	}
	return spare
}
