package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/internal/inherited"
	"github.com/gracerun/grace/handoff/sibling"
	"github.com/gracerun/grace/handoff/synfilter"
	"golang.org/x/sys/unix"
)

// Descriptors are those that a process has got from its predecessor: by the numbers that they had there the numbers
// that they have here. What takes one over removes it; the rest stays the caller's.
type Descriptors map[int]int

// Take gives the number here, and removes it. There is no descriptor below zero, neither here nor there.
func (d Descriptors) Take(there int) (int, error) {
	if there < 0 {
		return -1, nil
	}
	here, ok := d[there]
	if !ok {
		return -1, fmt.Errorf("descriptor %d is missing from the state", there)
	}
	delete(d, there)
	return here, nil
}

// ListenerState is what a successor of this process has to know of a Listener. FD stays the Listener's: the successor
// gets a duplicate.
type ListenerState struct {
	Address      Address
	FD           int
	Bound        string
	Inode        uint64
	Device, File uint64 // of the path; 0 if there is none
	Spare        string // the second, hidden name of the path
	Passed       bool   // by grace's service manager, which owns the path
}

// State describes the Listener. No Revive may go on meanwhile.
func (l *Listener) State() ListenerState {
	return ListenerState{
		Address: l.address, FD: l.fd, Bound: l.bound, Inode: l.Inode(),
		Device: l.path.Dev, File: l.path.Ino, Spare: l.spare, Passed: l.passed,
	}
}

// TakeOverListener continues a predecessor's Listener, which must not be closed there: that would remove its unix path.
func TakeOverListener(s ListenerState, fds Descriptors) (*Listener, error) {
	fd, err := fds.Take(s.FD)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the listener on %s: %w", s.Bound, err)
	}
	l := &Listener{address: s.Address, fd: fd, bound: s.Bound, path: File{s.Device, s.File}, spare: s.Spare, passed: s.Passed}
	l.inode.Store(s.Inode)
	if !s.Address.Steer && !s.Passed {
		l.openAgain()
	}
	return l, nil
}

// openAgain is for a predecessor that was killed when it had turned new connections away, or had them wait beside its listener. What cannot be
// undone stays as it was: the app is better off with this process than without.
func (l *Listener) openAgain() {
	switch {
	case l.address.Unix():
		_ = l.restorePath()
	case l.address.tcp():
		l.endSharing()
		_ = synfilter.Detach(l.fd)
	}
}

// endSharing is for a predecessor that was killed while it had new connections wait beside its listener (handoff/farewell). Where the right is
// missing, which that had, nothing is lost but the chance to do it again.
func (l *Listener) endSharing() {
	if shared, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err == nil && shared != 0 {
		_ = sibling.Unshare(l.fd)
	}
}

// BindAgain makes the socket of a Listener anew whose process was killed, and that nobody has: at the address that it had, which
// apps may have sockets of their own at if it only reserved it.
func BindAgain(s ListenerState) (*Listener, error) {
	a := s.Address
	if s.Passed {
		return takePassedAgain(s)
	}
	a.Addr = s.Bound
	if a.Unix() && a.Steer {
		return ReservePath(a)
	}
	if a.Unix() {
		return bindUnix(a)
	}
	at, err := netip.ParseAddrPort(s.Bound)
	if err != nil {
		return nil, fmt.Errorf("cannot bind %s again: %w", s.Bound, err)
	}
	if !a.Steer {
		return bindHost(a, at, sharing{})
	}
	l, err := newListener(a, inetaddr.Family(at.Addr()))
	if err != nil {
		return nil, err
	}
	if err := l.reserve(at); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot bind %s again: %w", s.Bound, err), unix.Close(l.fd))
	}
	return l, nil
}

func (l *Listener) reserve(at netip.AddrPort) error {
	sockaddr, err := inetaddr.Sockaddr(at)
	if err == nil {
		err = l.setInetOptions(at.Addr())
	}
	if err == nil {
		err = unix.Bind(l.fd, sockaddr)
	}
	l.bound = at.String()
	return err
}

// takePassedAgain finds the socket among those that the service manager has passed this time.
func takePassedAgain(s ListenerState) (*Listener, error) {
	sockets, err := inherited.FromSystemd(os.Getenv)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(sockets, func(passed inherited.Socket) bool { return passed.Inspect() && passed.Inode == s.Inode })
	if i < 0 {
		return nil, fmt.Errorf("cannot take %s again: the service manager has not passed the socket", s.Bound)
	}
	return holdInherited(&sockets[i], s.Address)
}

// SocketPlanState is what is left of a SocketPlan once its instance is ready. Predecessor is the descriptor of the pipe, and -1
// without one.
type SocketPlanState struct{ Predecessor int }

// State describes the plan, whose descriptor stays its own.
func (g *SocketPlan) State() SocketPlanState {
	s := SocketPlanState{Predecessor: -1}
	if g.Predecessor == nil {
		return s
	}
	conn, err := g.Predecessor.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { s.Predecessor = int(fd) })
	}
	if err != nil { // it is closed
		s.Predecessor = -1
	}
	return s
}

// TakeOverSocketPlan continues a predecessor's SocketPlan.
func TakeOverSocketPlan(s SocketPlanState, fds Descriptors) (*SocketPlan, error) {
	fd, err := fds.Take(s.Predecessor)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the pipe that reports the end of an old instance: %w", err)
	}
	g := &SocketPlan{Stdin: -1}
	if fd >= 0 {
		g.Predecessor = os.NewFile(uintptr(fd), "pipe to the app")
	}
	return g, nil
}
