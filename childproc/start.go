package childproc

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/childproc/memfd"
	"github.com/gracerun/grace/childproc/shim"
	"golang.org/x/sys/unix"
)

// What a shim says before it ends.
const (
	listenerFollows = "l" // with a descriptor
	executes        = "x" // nothing at all is the report of a shim that has died before
)

// Start forks and leaves the rest to the shim: whether the app could be executed
// is part of what [Process.Wait] tells. The error is a *StartError.
func (r *Reaper) Start(spec Spec) (*Process, error) {
	p := &Process{ProcessState: ProcessState{Path: spec.Path, PIDFD: -1}, reaper: r, conn: -1}
	theirs, err := p.connect()
	if err != nil {
		return nil, startError("connect to the shim", spec.Path, err)
	}
	defer unix.Close(theirs)
	files, err := newShimFiles(spec, theirs)
	if err != nil {
		p.disconnect()
		return nil, startError("open /dev/null", spec.Path, err)
	}
	defer files.close()
	if err := r.startShim(p, spec, files); err != nil {
		p.disconnect()
		return nil, startError("fork", spec.Path, err)
	}
	return p, nil
}

// startShim sends the list before it forks: a shim that waited for it would wait for grace to get a processor first. What the
// connection has no room for follows.
func (r *Reaper) startShim(p *Process, spec Spec, g *shimFiles) error {
	if err := r.openStub(g); err != nil {
		return err
	}
	rest := p.instruct(spec, g)
	if err := r.forkShim(p, spec, g); err != nil {
		return err
	}
	p.sendRest(rest)
	return nil
}

// connect gives the shim's end of the connection, which blocks.
func (p *Process) connect() (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	p.conn = pair[0]
	_ = unix.SetNonblock(p.conn, true) // fcntl(2) cannot fail here
	return pair[1], nil
}

// shimFiles are the descriptors of a shim, by the numbers that they have there. The first is the connection, those after the app's own
// are not for the app.
type shimFiles struct {
	files                            []int
	connection, stdin, program, stub int // the later numbers; -1: none
	opened                           []int
}

func newShimFiles(spec Spec, conn int) (*shimFiles, error) {
	g := &shimFiles{files: append([]int{conn, spec.Stdout, spec.Stderr}, spec.Files...), stub: -1, program: -1}
	g.connection = g.add(conn)
	stdin := spec.Stdin
	if stdin < 0 {
		null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		stdin, g.opened = null, append(g.opened, null)
	}
	g.stdin = g.add(stdin)
	if spec.Program != 0 {
		g.program = g.add(spec.Program)
	}
	return g, nil
}

func (g *shimFiles) add(fd int) int {
	g.files = append(g.files, fd)
	return len(g.files) - 1
}

func (g *shimFiles) close() { closeAll(g.opened) }

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (g *shimFiles) numbers() []uintptr {
	var numbers []uintptr
	for _, fd := range g.files {
		numbers = append(numbers, uintptr(fd))
	}
	return numbers
}

// forkShim falls back to a copy of grace where the stub is not executed: by vm.memfd_noexec, by SELinux, by a filter of system calls.
// The copy gets the same list.
func (r *Reaper) forkShim(p *Process, spec Spec, g *shimFiles) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.stub >= 0 {
		// By the number that it has in the child: there another descriptor may take the place that it has here.
		if err := r.fork(p, spec, "/proc/self/fd/"+strconv.Itoa(g.stub), g); err == nil || Shortage(err) {
			return err
		}
	}
	err := r.fork(p, spec, "/proc/self/exe", g)
	if err == nil {
		r.noStub.Store(true)
	}
	return err
}

// fork is called with the lock held until the child is known as our own: an app that ends at once must not be taken for an orphan.
func (r *Reaper) fork(p *Process, spec Spec, path string, g *shimFiles) error {
	p.Tag = r.nextTag()
	err := underTag(p.Tag, func() (err error) {
		p.PID, err = syscall.ForkExec(path, []string{shim.Name}, &syscall.ProcAttr{
			Dir:   spec.Dir,
			Files: g.numbers(),
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
	r.own[p.PID], p.forked = p, true
	p.hold()
	return nil
}

// apart has the process lead a group, and a session too where it becomes another user: in grace's own that user could
// push keystrokes into the terminal of who has started grace (TIOCSTI, tiocsti in drivers/tty/tty_io.c).
func apart(spec Spec, pidfd *int) *syscall.SysProcAttr {
	session := spec.Identity != nil
	return &syscall.SysProcAttr{Setsid: session, Setpgid: !session, PidFD: pidfd}
}

// openStub has the stub among the files, where there is one: a file in memory that nobody can change.
func (r *Reaper) openStub(g *shimFiles) error {
	stub := shim.Stub()
	if stub == nil || r.noStub.Load() || !keepsCapabilities() {
		return nil
	}
	image, err := memfd.Executable(shim.Name, stub)
	if err != nil && Shortage(err) {
		return err
	}
	if err == nil {
		g.stub, g.opened = g.add(image), append(g.opened, image)
	}
	return nil
}

// keepsCapabilities reports whether a program that has none of its own is left with what grace has: who is root is, and ambient
// ones stay. Those that grace's file gives (setcap) only another grace gets.
func keepsCapabilities() bool {
	if os.Geteuid() == 0 {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	for n := range 64 {
		if data[n/32].Permitted&(1<<(n%32)) == 0 {
			continue
		}
		if set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n), 0, 0); err != nil || set == 0 {
			return false
		}
	}
	return true
}

// instruct tells the shim what it has to do, and gives what the connection has no room for.
func (p *Process) instruct(spec Spec, g *shimFiles) (rest []byte) {
	list := shim.NewList(g.connection)
	g.takePlaces(list)
	if spec.Umask >= 0 {
		list.Call("umask", unix.SYS_UMASK, uintptr(spec.Umask))
	}
	if spec.NoNewPrivs {
		list.Call("no-new-privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	if p.sendsListener = spec.Capture; p.sendsListener {
		capturing(list, spec.CaptureUnlink, g.connection)
	}
	// Credentials go last: set before the filter, they take the right to install it.
	if spec.Identity != nil {
		spec.Identity.take(list)
	}
	execute(list, spec, g)
	return p.send(list)
}

// send sends what the connection has room for. A list that cannot be sent is given up; the end of the connection is the end of
// the shim.
func (p *Process) send(list *shim.List) (rest []byte) {
	text, err := list.Encode()
	if err != nil {
		p.fail("exec", err)
		return nil
	}
	n, err := unix.Write(p.conn, text)
	if err == unix.EAGAIN || err == unix.EINTR || hungUp(err) { // [Process.sendRest] sees it
		err = nil
	}
	if err != nil {
		p.fail("connect to the shim", err)
		return nil
	}
	p.list = list
	return text[max(n, 0):]
}

// sendRest waits for room in Go's poller. A shim that has died, or that does not get its list, tells by its end.
func (p *Process) sendRest(rest []byte) {
	if len(rest) == 0 {
		return
	}
	file, err := p.pollable()
	if err == nil {
		_, err = file.Write(rest) // of SIGPIPE Go makes an error (os/signal)
		file.Close()
	}
	if err != nil && !hungUp(err) {
		p.fail("connect to the shim", err)
	}
}

// hungUp reports whether the shim has ended.
func hungUp(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

func (p *Process) fail(step string, err error) {
	p.failed = startError(step, p.Path, err)
	p.disconnect()
}

// takePlaces puts everything at the number that it has in the app.
func (g *shimFiles) takePlaces(list *shim.List) {
	list.Call("connection", unix.SYS_FCNTL, uintptr(g.connection), unix.F_SETFD, unix.FD_CLOEXEC)
	list.Call("stdin", unix.SYS_DUP3, uintptr(g.stdin), 0, 0)
	list.Call("stdin", unix.SYS_CLOSE, uintptr(g.stdin))
	if g.stub >= 0 {
		list.Call("stub", unix.SYS_CLOSE, uintptr(g.stub))
	}
	if g.program >= 0 {
		list.Call("program", unix.SYS_FCNTL, uintptr(g.program), unix.F_SETFD, unix.FD_CLOEXEC)
	}
}

// capturing installs the filter and sends its listener to grace, which holds the only one from the exec on: it is
// close-on-exec (init_listener in kernel/seccomp.c). What the app asks for before grace has it waits, as all that it asks for
// (seccomp_do_user_notification there).
func capturing(list *shim.List, unlink bool, connection int) {
	filter, err := capture.Filter(unlink)
	if err != nil {
		list.Call("seccomp", ^uintptr(0)) // ENOSYS
		return
	}
	program := list.Words(uintptr(len(filter)), list.Bytes(bytesOf(filter))) // struct sock_fprog
	list.Call("seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, capture.FilterFlags(), program)
	rights := list.Bytes(unix.UnixRights(0))
	list.StoreResult(rights + unix.SizeofCmsghdr)
	text := list.Words(list.String(listenerFollows), uintptr(len(listenerFollows))) // struct iovec
	message := list.Words(0, 0, text, 1, rights, uintptr(unix.CmsgSpace(4)), 0)     // struct msghdr
	list.Call("listener", unix.SYS_SENDMSG, uintptr(connection), message, unix.MSG_NOSIGNAL)
}

func bytesOf[T any](values []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*int(unsafe.Sizeof(*new(T))))
}

// take gives up all rights but those of the user. The kernel takes capabilities from who was root, and from nobody else
// (cap_emulate_setxuid in security/commoncap.c). Those in the ambient set would outlive the exec.
func (id Identity) take(list *shim.List) {
	groups := make([]uint32, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = uint32(g)
	}
	list.Call("setgroups", sysSetgroups, uintptr(len(groups)), list.Bytes(bytesOf(groups)))
	list.Call("setgid", sysSetgid, uintptr(id.GID))
	list.Call("setuid", sysSetuid, uintptr(id.UID))
	list.Call("capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// execute becomes the app.
func execute(list *shim.List, spec Spec, g *shimFiles) {
	list.Call("report", unix.SYS_WRITE, uintptr(g.connection), list.String(executes), uintptr(len(executes)))
	args, env := list.Strings(spec.Args), environment(list, spec)
	if g.program < 0 {
		list.Call("exec", unix.SYS_EXECVE, list.String(spec.Path), args, env)
		return
	}
	// Only execveat names the process after the file (from Linux 6.14 on, in begin_new_exec of fs/exec.c), not after the
	// descriptor's number.
	list.Call("exec", unix.SYS_EXECVEAT, uintptr(g.program), list.String(""), args, env, unix.AT_EMPTY_PATH)
}

// environment leaves it to the shim to fill in its own number.
func environment(list *shim.List, spec Spec) uintptr {
	env := slices.DeleteFunc(slices.Clone(spec.Env), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(spec.PIDVars, name)
	})
	var pids []uintptr
	for _, name := range spec.PIDVars {
		pids = append(pids, list.PID(name+"="))
	}
	return list.Strings(env, pids...)
}
