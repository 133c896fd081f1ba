package childproc

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Reaper is all processes that grace has started and not reaped yet. As PID 1 or subreaper grace also becomes the
// parent of orphans, and has to tell the two apart. Its methods may be called from any goroutine.
type Reaper struct {
	// children is held by who reaps a child, and by who lists them: of a list that loses some while it is read the kernel leaves
	// out others (get_children_pid in fs/proc/array.c). It comes before mu. Reaping can take long, and forks do not wait for it.
	children       sync.Mutex
	mu             sync.Mutex
	own            map[int]*Process
	firstTag       uint64      // each process has a later one
	lastTag        uint64      // the one given last
	noStub         atomic.Bool // the system does not execute files in memory
	notOurChildren bool        // some were started by another grace: their orphans may be anybody's children
}

// NewReaper makes the calling process the reaper of its descendants' orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so
// that a double fork does not hide a process of the app.
func NewReaper() (*Reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become the reaper of orphaned processes: %w", err)
	}
	first := newTags()
	return &Reaper{own: map[int]*Process{}, firstTag: first, lastTag: first}, nil
}

// ReapOrphans reaps every dead child that grace did not start, and says
// how many there were. It is to be called after SIGCHLD.
func (r *Reaper) ReapOrphans() (int, error) {
	r.children.Lock()
	defer r.children.Unlock()
	if r.noneButOwn(func(*Process) bool { return true }) {
		return 0, nil
	}
	pids, err := r.orphanedChildren()
	if err != nil {
		return 0, fmt.Errorf("cannot list own children: %w", err)
	}
	reaped := 0
	for _, pid := range pids {
		if got, _ := unix.Wait4(pid, nil, unix.WNOHANG, nil); got == pid {
			reaped++
		}
	}
	return reaped, nil
}

// children lists the children of all threads, zombies too: an orphan goes to any of them.
func children() ([]int, error) { return listedChildren(os.Getpid()) }

// Tree lists pid, all its living descendants, and whoever comes from the same start, has lost its parent and is looked
// after by nobody. It is a snapshot as that of the other [Tree]; the error is os.ErrNotExist if there is no process pid.
func (r *Reaper) Tree(pid int) ([]int, error) {
	pids, err := Tree(pid)
	if err != nil || !r.mayHaveOrphans() {
		return pids, err
	}
	tag, err := tagOf(pid)
	if err != nil {
		return nil, fmt.Errorf("cannot list the orphans below process %d: %w", pid, err)
	}
	orphans, err := r.orphansOf(tag) // after the others: who was below one that has ended since is among them
	if err != nil {
		return nil, fmt.Errorf("cannot list the orphans below process %d: %w", pid, err)
	}
	return union(pids, orphans), nil
}

// mayHaveOrphans tells at the price of one file that there are none.
func (r *Reaper) mayHaveOrphans() bool {
	return !r.noneButOwn(func(*Process) bool { return true }) || r.follows()
}

// noneButOwn reports whether the children of grace that may be orphans are all its own, and such as are meant. The kernel gives
// orphans to the first thread of their reaper that lives (find_alive_thread in kernel/exit.c), and Go's main thread never ends
// (mexit in the runtime's proc.go).
func (r *Reaper) noneButOwn(meant func(*Process) bool) bool {
	list, err := listedChildrenOf(os.Getpid(), os.Getpid(), nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	return err == nil && !slices.ContainsFunc(appendNumbers(nil, list), func(pid int) bool { return r.own[pid] == nil || !meant(r.own[pid]) })
}

// follows reports whether there may be orphans that are somebody else's children.
func (r *Reaper) follows() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notOurChildren
}

// mayBeElsewhere reports whether orphans with this tag may be another process's children.
func (r *Reaper) mayBeElsewhere(tag uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notOurChildren && (tag <= r.firstTag || tag > r.lastTag)
}

func (r *Reaper) owns(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own[pid] != nil
}

// KillSuccessors kills, between Suspend and Resume, all orphans that have the variable in their environment. It is to be one
// that neither grace nor its apps have.
func (r *Reaper) KillSuccessors(variable string) error {
	everybody := func(int) (bool, error) { return true, nil }
	list := func() ([]int, error) { return orphans(r.suspendedOrphans, everybody) }
	return killAll(list, func(pid int) error { return killWith(pid, variable) })
}

func killWith(pid int, variable string) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ignoreGone(os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(pidfd)
	env, err := Environment(pid)
	if err != nil || !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, variable+"=") }) {
		return ignoreGone(err)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("cannot kill process %d: %w", pid, err)
	}
	return nil
}

// reap gives the number back to the kernel, and forgets it in one go with that for who lists the children. A process that grace
// forks meanwhile may have the number already.
func (r *Reaper) reap(p *Process) error {
	r.children.Lock()
	defer r.children.Unlock()
	defer r.forget(p)
	if p.PIDFD < 0 {
		return nil
	}
	return unix.Waitid(unix.P_PIDFD, p.PIDFD, nil, unix.WEXITED|unix.WNOHANG, nil)
}

func (r *Reaper) forget(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[p.PID] == p {
		delete(r.own, p.PID)
	}
}
