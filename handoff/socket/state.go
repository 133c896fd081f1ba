package socket

import (
	"fmt"
	"os"
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
	return l, nil
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
