package childproc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ProcessState is what a successor of this grace process has to know of a Process. PIDFD stays the Process's: the successor
// gets a duplicate. It is -1 for a process that has ended unseen, of which nothing but its number is known any more.
type ProcessState struct {
	PID, PIDFD int
	Path       string
	Group      bool   // it leads a process group, though its number may be gone
	Tag        uint64 `json:"Mark"`
	Birth      Birth  `json:",omitzero"`
	Alone      bool   `json:",omitzero"` // grace has not started it, and others are in its process group
}

// NotifyState is what a successor has to know of a NotifySocket, whose descriptors stay its own.
type NotifyState struct {
	Path   string
	FD     int
	Former []int `json:",omitempty"` // of those whose path was removed, the oldest first
}

// take gives the number that a descriptor of the predecessor has here.
func take(fds map[int]int, there int) (int, error) {
	here, ok := fds[there]
	if !ok {
		return -1, fmt.Errorf("descriptor %d is missing from the state", there)
	}
	delete(fds, there)
	return here, nil
}

// State describes the Process. Its shim has to be gone: the app runs, or has ended.
func (p *Process) State() ProcessState {
	s := p.ProcessState
	s.Group = p.leadsGroup()
	return s
}

// TakeOver continues a predecessor's Process. fds gives for each descriptor of the predecessor the one here; what is
// taken over is removed from it. In a successor of the same pid the process is a child still; in another one its parent
// is whoever has taken it in, who reaps it. Then Wait can tell how it ended from Linux 6.15 on, and gives an unknown
// Exit before that.
func (r *Reaper) TakeOver(s ProcessState, fds map[int]int) (*Process, error) {
	pidfd, err := -1, error(nil)
	if s.PIDFD >= 0 {
		pidfd, err = take(fds, s.PIDFD)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take over process %d: %w", s.PID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if stat, err := readStat(s.PID); pidfd < 0 || err != nil || stat.parent != os.Getpid() {
		r.notOurChildren = true
	}
	s.PIDFD = pidfd
	return r.take(s), nil
}

// Suspend holds Start and ReapOrphans up until Resume: the end of a child that somebody else waits for is not theirs.
func (r *Reaper) Suspend() {
	r.children.Lock()
	r.mu.Lock()
}

// Resume goes on after Suspend.
func (r *Reaper) Resume() {
	r.mu.Unlock()
	r.children.Unlock()
}

// reapedWithin is how long the parent of a process that is not grace's child is given to learn of its end.
const reapedWithin = 2 * time.Second

// exitOfOther asks how a process ended that is not grace's child. The kernel tells once it was reaped
// (PIDFD_INFO_EXIT of Linux 6.15, in pidfd_info of fs/pidfs.c), which is also when the pidfd hangs up.
func (p *Process) exitOfOther() (Exit, error) {
	var info unix.PidfdInfo
	if err := readInfo(p.PIDFD, &info); err == unix.ENOTTY || err == unix.EINVAL {
		return Exit{Unknown: true}, nil
	}
	if err := waitReaped(p.end); err != nil {
		return Exit{}, err
	}
	if err := readInfo(p.PIDFD, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{Unknown: true}, nil
	}
	status := unix.WaitStatus(info.Exit_code)
	if status.Signaled() {
		return Exit{Signal: syscall.Signal(status.Signal())}, nil
	}
	return Exit{Code: status.ExitStatus()}, nil
}

func readInfo(pidfd int, info *unix.PidfdInfo) error {
	*info = unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), unix.PIDFD_GET_INFO, uintptr(unsafe.Pointer(info)))
	if errno != 0 {
		return errno
	}
	return nil
}

func waitReaped(end *os.File) error {
	if err := end.SetReadDeadline(time.Now().Add(reapedWithin)); err != nil {
		return err
	}
	err := waitFor(end, 0) // the hangup, which is always told
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// State describes the NotifySocket, which must not be closed if a successor has it: that would remove its path.
func (s *NotifySocket) State() (NotifyState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.sockets) - 1
	if last < 0 {
		return NotifyState{Path: s.path, FD: -1}, fmt.Errorf("cannot hand over the notification socket: %w", net.ErrClosed)
	}
	return NotifyState{Path: s.path, FD: s.sockets[last], Former: slices.Clone(s.sockets[:last])}, nil
}

// Suspend ends Receive with os.ErrDeadlineExceeded. What is sent from now on waits in the sockets, for Resume or for a
// successor.
func (s *NotifySocket) Suspend() error {
	s.rest(true)
	return s.set.SetReadDeadline(time.Unix(1, 0))
}

// Resume lets Receive be called again after Suspend.
func (s *NotifySocket) Resume() error {
	s.rest(false)
	return s.set.SetReadDeadline(time.Time{})
}

func (s *NotifySocket) rest(resting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting = resting
}

// TakeOverNotify continues a predecessor's NotifySocket, with the messages that wait in it.
func TakeOverNotify(s NotifyState, fds map[int]int) (*NotifySocket, error) {
	var sockets []int
	for _, there := range append(slices.Clone(s.Former), s.FD) {
		fd, err := take(fds, there)
		if err != nil {
			closeAll(sockets)
			return nil, fmt.Errorf("cannot take over the notification socket: %w", err)
		}
		sockets = append(sockets, fd)
	}
	return newNotifySocket(s.Path, sockets...)
}
