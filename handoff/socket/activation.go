package socket

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gracerun/grace/handoff/internal/inherited"
	"golang.org/x/sys/unix"
)

// bindPassed holds a socket that grace's own service manager has made. The manager keeps its own descriptor, so that
// clients wait while no grace runs.
func bindPassed(a Address) (*Listener, error) {
	s, err := passedSocket(a.Addr)
	if err != nil {
		return nil, fmt.Errorf("cannot take fd://%s: %w", a.Addr, err)
	}
	if err := checkHeld(&s); err != nil {
		return nil, fmt.Errorf("cannot take fd://%s: descriptor %d %w", a.Addr, s.FD, err)
	}
	return holdInherited(&s, a)
}

// holdInherited makes a duplicate of the socket a Listener.
func holdInherited(s *inherited.Socket, a Address) (*Listener, error) {
	fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot take %s: %w", s, err)
	}
	a.Network, a.Addr = s.Network, s.Addr()
	if err := a.setSocketOptions(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set up %s: %w", s, err), unix.Close(fd))
	}
	l := &Listener{address: a, fd: fd, bound: a.Addr, passed: true}
	l.inode.Store(s.Inode)
	l.guardPath()
	// An app of an earlier grace may have shut it down: the manager passes it as it is.
	if err := l.Revive(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// passedSocket looks for a name first, as a name may be a number.
func passedSocket(wanted string) (inherited.Socket, error) {
	sockets, err := inherited.FromSystemd(os.Getenv)
	if err != nil {
		return inherited.Socket{}, err
	}
	if len(sockets) == 0 {
		return inherited.Socket{}, notPassed(os.Getenv)
	}
	var found []inherited.Socket
	for _, s := range sockets {
		if s.Name == wanted {
			found = append(found, s)
		}
	}
	if i := slices.IndexFunc(sockets, func(s inherited.Socket) bool { return strconv.Itoa(s.Number) == wanted }); i >= 0 && len(found) == 0 {
		found = sockets[i : i+1]
	}
	switch len(found) {
	case 0:
		return inherited.Socket{}, fmt.Errorf("no socket of this name was passed to grace, only %s "+
			"(FileDescriptorName= in the .socket unit sets the name)", listPassed(sockets))
	case 1:
		return found[0], nil
	}
	return inherited.Socket{}, fmt.Errorf("the name fits several sockets: write the number of one, or give them units "+
		"of their own with FileDescriptorName=; grace has %s", listPassed(sockets))
}

func listPassed(sockets []inherited.Socket) string {
	names := make([]string, len(sockets))
	for i, s := range sockets {
		names[i] = fmt.Sprintf("%d (%s)", s.Number, s.Name)
	}
	return strings.Join(names, ", ")
}

func notPassed(getenv func(string) string) error {
	if getenv("LISTEN_FDS") == "" {
		return errors.New("no socket was passed to grace, LISTEN_FDS is not set: let a .socket unit start it, and name " +
			"that in Sockets= of the .service unit")
	}
	return fmt.Errorf("the sockets were passed to another process: LISTEN_PID is %q, and grace is %d: start grace "+
		"without a program in between, or by exec", getenv("LISTEN_PID"), os.Getpid())
}

// checkHeld inspects the socket, and refuses what cannot be a held listener.
func checkHeld(s *inherited.Socket) error {
	if _, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return fmt.Errorf("is not a socket: %w", err)
	}
	if !s.Inspect() || s.Network == "unixpacket" {
		return errors.New("is neither TCP nor UDP, nor a unix stream or datagram socket")
	}
	if _, err := unix.Getpeername(s.FD); err != unix.ENOTCONN {
		return errors.New("is a connection: leave Accept=yes out of the .socket unit")
	}
	if s.Path == "" && s.Host.Port() == 0 {
		return errors.New("has no address")
	}
	return nil
}

// errShutDown is of a unix socket, which never listens again.
var errShutDown = errors.New("an app has shut it down, and only the service manager can open it again: restart the .socket unit")

// guardPath protects the path from apps that remove it. It stays the service manager's.
func (l *Listener) guardPath() {
	var stat unix.Stat_t
	if !l.address.Unix() || l.address.abstract() || unix.Lstat(l.bound, &stat) != nil || !isSocket(&stat) {
		return
	}
	l.path = FileOf(&stat)
	l.spare = keepSpare(l.bound)
}

// Passed are the descriptors that grace's service manager has passed to this process, with their names (sd_listen_fds_with_names(3)).
func Passed() (map[int]string, error) {
	sockets, err := inherited.FromSystemd(os.Getenv)
	passed := make(map[int]string, len(sockets))
	for _, s := range sockets {
		passed[s.FD] = s.Name
	}
	return passed, err
}

// HoldKept makes a Listener of a socket that a grace process before has bound for the same address, and that its service manager has
// kept since. It owns the descriptor, also if there is an error.
func HoldKept(a Address, fd int) (*Listener, error) {
	s := inherited.Socket{FD: fd}
	if err := checkHeld(&s); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot go on with the socket that the service manager has kept: descriptor %d %w", fd, err), unix.Close(fd))
	}
	l := &Listener{address: a, fd: fd, bound: s.Addr()}
	l.inode.Store(s.Inode)
	if err := errors.Join(a.setSocketOptions(fd), l.Revive()); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return l, nil
}
