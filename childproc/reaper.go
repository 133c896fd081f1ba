package childproc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/gracerun/grace/childproc/shim"
	"golang.org/x/sys/unix"
)

// Reaper is all processes that grace has started and not reaped yet. As PID 1 or subreaper grace also becomes the
// parent of orphans, and has to tell the two apart. Its methods may be called from any goroutine.
type Reaper struct {
	mu             sync.Mutex
	own            map[int]struct{}
	firstTag       uint64 // each process has a later one
	lastTag        uint64 // the one given last
	notOurChildren bool   // some were started by another grace: their orphans may be anybody's children
}

// NewReaper makes the calling process the reaper of its descendants' orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so
// that a double fork does not hide a process of the app.
func NewReaper() (*Reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become the reaper of orphaned processes: %w", err)
	}
	first := newTags()
	return &Reaper{own: map[int]struct{}{}, firstTag: first, lastTag: first}, nil
}

// Start forks and leaves the rest to the shim: whether the app could be executed
// is part of what [Process.Wait] tells. The error is a *StartError.
func (r *Reaper) Start(spec Spec) (*Process, error) {
	null, err := openNull(spec)
	if err != nil {
		return nil, startError("open /dev/null", spec.Path, err)
	}
	defer closeAll(null)
	p := &Process{ProcessState: ProcessState{Path: spec.Path, PIDFD: -1}, reaper: r, report: -1, capture: -1}
	theirs, err := p.connect(spec)
	defer closeAll(theirs)
	if err != nil {
		p.disconnect()
		return nil, startError("connect to the shim", spec.Path, err)
	}
	if err := r.fork(p, spec, null, theirs); err != nil {
		p.disconnect()
		return nil, startError("fork", spec.Path, err)
	}
	return p, nil
}

func openNull(spec Spec) ([]int, error) {
	if spec.Stdin >= 0 {
		return nil, nil
	}
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return []int{fd}, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// fork holds the lock until the child is known as our own: an app that ends at once must not be taken for an orphan.
func (r *Reaper) fork(p *Process, spec Spec, null, theirs []int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.Tag = r.nextTag()
	err := underTag(p.Tag, func() (err error) {
		p.PID, err = syscall.ForkExec("/proc/self/exe", shimArgs(spec), &syscall.ProcAttr{
			Dir:   spec.Dir,
			Env:   spec.Env,
			Files: shimFiles(spec, null, theirs),
			Sys:   apart(spec, &p.PIDFD),
		})
		return err
	})
	if err != nil {
		return err
	}
	if p.PIDFD < 0 {
		// Go keeps no pidfd where the kernel gave none (before Linux 5.4).
		return errors.Join(errNoPidfd, p.abandon())
	}
	r.own[p.PID] = struct{}{}
	p.hold()
	return nil
}

// apart has the process lead a group, and a session too where it becomes another user: in grace's own that user could
// push keystrokes into the terminal of who has started grace (TIOCSTI, tiocsti in drivers/tty/tty_io.c).
func apart(spec Spec, pidfd *int) *syscall.SysProcAttr {
	session := spec.Identity != nil
	return &syscall.SysProcAttr{Setsid: session, Setpgid: !session, PidFD: pidfd}
}

func shimArgs(spec Spec) []string {
	e := shim.Spec{
		Path: spec.Path, PIDVars: spec.PIDVars, Umask: spec.Umask,
		Report: 3 + len(spec.Files), Capture: -1, Unlink: spec.CaptureUnlink, NoNewPrivs: spec.NoNewPrivs,
	}
	if spec.Capture {
		e.Capture = e.Report + 1
	}
	if spec.Program != 0 {
		e.Program = max(e.Report, e.Capture) + 1
	}
	if id := spec.Identity; id != nil {
		e.Identity = &shim.Identity{UID: id.UID, GID: id.GID, Groups: id.Groups}
	}
	return e.Argv(spec.Args)
}

func shimFiles(spec Spec, null, theirs []int) []uintptr {
	stdin := spec.Stdin
	if len(null) > 0 {
		stdin = null[0]
	}
	files := []uintptr{uintptr(stdin), uintptr(spec.Stdout), uintptr(spec.Stderr)}
	for _, fd := range slices.Concat(spec.Files, theirs) {
		files = append(files, uintptr(fd))
	}
	if spec.Program != 0 {
		files = append(files, uintptr(spec.Program))
	}
	return files
}

// ReapOrphans reaps every dead child that grace did not start, and says
// how many there were. It is to be called after SIGCHLD.
func (r *Reaper) ReapOrphans() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
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

// mayHaveOrphans tells at the price of one file that there are none. The kernel gives them to the first thread of their
// reaper that lives (find_alive_thread in kernel/exit.c), and Go's main thread never ends (mexit in the runtime's proc.go).
func (r *Reaper) mayHaveOrphans() bool {
	pids, err := listedChildrenOf(os.Getpid(), os.Getpid())
	r.mu.Lock()
	defer r.mu.Unlock()
	return err != nil || r.notOurChildren || slices.ContainsFunc(pids, func(pid int) bool { _, own := r.own[pid]; return !own })
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
	_, own := r.own[pid]
	return own
}

// KillSuccessors kills, between Suspend and Resume, all orphans that have the variable in their environment. It is to be one
// that neither grace nor its apps have.
func (r *Reaper) KillSuccessors(variable string) error {
	everybody := func(int) (bool, error) { return true, nil }
	list := func() ([]int, error) { return orphans(r.orphanedChildren, everybody) }
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

// reap gives the number back to the kernel and forgets it at once: the next process that gets it may be grace's too.
func (r *Reaper) reap(p *Process) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.own, p.PID)
	if p.PIDFD < 0 {
		return nil
	}
	return unix.Waitid(unix.P_PIDFD, p.PIDFD, nil, unix.WEXITED|unix.WNOHANG, nil)
}

func (r *Reaper) forget(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.own, pid)
}
