//go:build !linux

package childproc

import (
	"context"
	"errors"
	"syscall"

	"github.com/gracerun/grace/childproc/capture"
)

var errOnlyLinux = errors.New("cannot supervise a process: only on Linux, where pids can be trusted (pidfd)")

// Reaper is all processes that grace has started; see the Linux version.
type Reaper struct{}

// NewReaper always fails: processes can be supervised only on Linux.
func NewReaper() (*Reaper, error) { return nil, errOnlyLinux }

// Start always fails.
func (*Reaper) Start(Spec) (*Process, error) { return nil, errOnlyLinux }

// Adopt always fails.
func (*Reaper) Adopt(int) (*Process, error) { return nil, errOnlyLinux }

// TakeOver always fails.
func (*Reaper) TakeOver(ProcessState, map[int]int) (*Process, error) { return nil, errOnlyLinux }

// KillSuccessors always fails.
func (*Reaper) KillSuccessors(string) error { return errOnlyLinux }

// Tree always fails.
func (*Reaper) Tree(int) ([]int, error) { return nil, errOnlyLinux }

// Suspend does nothing.
func (*Reaper) Suspend() {}

// Resume does nothing.
func (*Reaper) Resume() {}

// ReapOrphans always fails.
func (*Reaper) ReapOrphans() (int, error) { return 0, errOnlyLinux }

// Process is one process of the app; there are none here.
type Process struct{ PID int }

// State is empty.
func (*Process) State() ProcessState { return ProcessState{} }

// Release does nothing.
func (*Process) Release() {}

// Signal always fails.
func (*Process) Signal(syscall.Signal) error { return errOnlyLinux }

// SignalGroup always fails.
func (*Process) SignalGroup(syscall.Signal) error { return errOnlyLinux }

// Bypass always fails.
func (*Process) Bypass(syscall.Signal) ([]Leftover, error) { return nil, errOnlyLinux }

// BypassRest always fails.
func BypassRest([]Leftover, syscall.Signal) ([]Leftover, error) { return nil, errOnlyLinux }

// Captured always fails.
func (*Process) Captured() (*capture.Listener, error) { return nil, errOnlyLinux }

// Wait always fails.
func (*Process) Wait() (Exit, error) { return Exit{}, errOnlyLinux }

// WaitRest always fails.
func (*Process) WaitRest(<-chan struct{}) error { return errOnlyLinux }

// KillRest always fails.
func (*Process) KillRest() error { return errOnlyLinux }

// EndRest always fails.
func (*Process) EndRest() error { return errOnlyLinux }

// Rest always fails.
func (*Process) Rest() ([]Leftover, error) { return nil, errOnlyLinux }

// Leftover is a process that another one has left behind; there are none here.
type Leftover struct {
	PID     int
	Command string
	Group   bool
}

// CloseRest does nothing.
func CloseRest([]Leftover) {}

// Signal always fails.
func (Leftover) Signal(syscall.Signal) error { return errOnlyLinux }

// Sockets always fails.
func (Leftover) Sockets() ([]uint64, error) { return nil, errOnlyLinux }

// Output always fails.
func (*Reaper) Output(context.Context, Spec, int) ([]byte, Exit, error) {
	return nil, Exit{}, errOnlyLinux
}

// Reap always fails.
func (*Process) Reap() error { return errOnlyLinux }
