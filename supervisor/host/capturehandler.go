package host

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// captureHandler answers the binds, listens and unlinks of one instance. It belongs to one
// goroutine, which ends with the last process of the instance, or when the
// listener is closed.
type captureHandler struct {
	apps   *Host
	app    *InstanceProcess
	calls  *capture.Listener
	fresh  map[uint64]int // grace's own sockets that took the place of the app's, by inode, until they listen
	told   map[string]bool
	asked  *capture.Call // the last one
	broken bool          // nothing is captured any more
	bound  chan struct{} // one at most: the app has bound something

	packets int // UDP sockets that the app has bound
}

func newCaptureHandler(a *Host, app *InstanceProcess) *captureHandler {
	return &captureHandler{
		apps: a, app: app, calls: app.calls,
		fresh: map[uint64]int{}, told: map[string]bool{}, bound: make(chan struct{}, 1),
	}
}

// answerAll may be called again after the listener was suspended.
func (c *captureHandler) answerAll() {
	ended := make(chan struct{})
	defer close(ended)
	go Guard(func() { c.forgetClosed(ended) }, c.apps.Notice("cannot release sockets that the app has closed any more"))()
	for {
		call, err := c.calls.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			c.forget()
			return
		}
		if err != nil {
			c.forget()
			c.apps.Post(machine.Noticed{Text: "cannot see the app's sockets any more", Why: err.Error()})
			return
		}
		c.asked = &call
		if err := c.answer(call); err != nil && !errors.Is(err, capture.ErrGone) {
			c.apps.Post(machine.Noticed{Text: "cannot answer the app", Why: err.Error()})
		}
	}
}

func (c *captureHandler) forget() {
	for _, fd := range c.fresh {
		unix.Close(fd)
	}
	clear(c.fresh)
}

// giveUp leaves all to the kernel from now on: for this instance it is as if nothing was
// captured, and it goes on.
func (c *captureHandler) giveUp(why string) {
	c.apps.Post(machine.Noticed{Text: "the app's sockets are no longer captured", Why: why})
	c.broken = true
	if err := guarded(c.passAll); err != nil {
		c.apps.ReportError("cannot end capturing", errors.Join(err, c.calls.Close()))
	}
}

func (c *captureHandler) passAll() {
	if c.asked != nil {
		_ = c.asked.Continue() // it may have its answer
	}
	c.answerAll()
}

func (c *captureHandler) answer(call capture.Call) error {
	if c.broken {
		return call.Continue()
	}
	switch call.Syscall() {
	case capture.Listen:
		return c.listen(call)
	case capture.Unlink:
		return c.unlink(call)
	}
	return c.bind(call)
}

// bind lets the app bind a socket that others can share the address with. An app
// that binds may have closed what it had before.
func (c *captureHandler) bind(call capture.Call) error {
	if path := c.path(call); path != "" {
		defer c.review()
		return c.bindPath(call, path)
	}
	sockaddr, err := call.Addr()
	if err != nil {
		return c.pass(call, err)
	}
	at := steering.ParseSockaddr(sockaddr)
	if passes, err := c.passing(call, at); passes || err != nil {
		return c.pass(call, err)
	}
	defer c.review()
	fd, err := call.Duplicate()
	if errors.Is(err, capture.ErrNotPermitted) {
		return c.replace(call, at)
	}
	if err != nil {
		return c.pass(call, err)
	}
	defer unix.Close(fd)
	if c.apps.Steering.Left(c.app.member(), fd, at) {
		take := func() (int, error) { return c.apps.Steering.Take(c.app.member(), fd, at) }
		if succeeded, err := c.succeed(call, take); succeeded || err != nil {
			return err
		}
	}
	decision := steering.NotSteered
	err = c.apps.withEviction(func() (err error) {
		decision, err = c.apps.Steering.Bind(c.app.member(), fd, at)
		return err
	})
	switch {
	case decision == steering.Conflict:
		c.tellInUse(errors.Join(err, unshare(fd)))
	case err != nil:
		c.tell("a socket of the app is not captured", err)
	}
	return call.Continue()
}

// tellInUse says it once more where the instance is not ready in time, or ends.
func (c *captureHandler) tellInUse(err error) {
	c.tell("the app binds an address that is in use", err)
	c.apps.Post(machine.Obstructed{Instance: c.app.start.Instance, Why: err.Error()})
}

// passing tells at little cost what is no TCP listener-to-be. Apps that bind before they
// connect, or for each question that they send, do it often.
func (c *captureHandler) passing(call capture.Call, at netip.AddrPort) (bool, error) {
	if at.Port() == 0 {
		return true, nil
	}
	protocol, err := call.Protocol()
	if isUDP(protocol) {
		c.reportPackets(call, at)
	}
	return protocol != "TCP" && protocol != "TCPv6", err
}

// review has it looked for what the app has closed.
func (c *captureHandler) review() {
	select {
	case c.bound <- struct{}{}:
	default: // the look that is to come is late enough
	}
}

// unshare lets the kernel refuse what it refuses without grace: the other socket
// may have SO_REUSEPORT from grace alone, and this one from the app.
func unshare(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
}

// succeed gives an instance that was started again the socket of the one before,
// or one that binds again what it had, with the clients that wait in it. A socket that
// is in an epoll set already cannot be replaced: the set would go on watching the one
// that the app has no more.
func (c *captureHandler) succeed(call capture.Call, take func() (int, error)) (bool, error) {
	if watched(call) {
		return false, nil
	}
	left, err := take()
	if err != nil || left < 0 {
		return false, err
	}
	defer unix.Close(left)
	c.apps.noteChange()
	if err := call.Install(left); err != nil {
		return false, nil // the app's own socket will do
	}
	return true, nil
}

// watched is true where it cannot be seen.
func watched(call capture.Call) bool {
	inode, err := call.Inode()
	if err != nil {
		return true
	}
	registered, err := childproc.Registered(inode, call.PID())
	return err != nil || registered
}

// replace does without a duplicate of the app's socket, where the system gives
// none: a socket of grace's own takes its place.
func (c *captureHandler) replace(call capture.Call, at netip.AddrPort) error {
	if !c.entitled(at) {
		return call.Continue()
	}
	fd := -1
	err := c.apps.withEviction(func() (err error) {
		fd, err = c.apps.Steering.Fresh(c.app.member(), at)
		return err
	})
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		if errno == syscall.EADDRINUSE {
			c.tellInUse(err)
		}
		return call.Return(errno)
	}
	if err != nil {
		return c.pass(call, err)
	}
	if fd < 0 {
		return call.Continue()
	}
	if err := call.Install(fd); err != nil {
		unix.Close(fd)
		return c.pass(call, err)
	}
	c.tell("capturing with grace's own sockets, because the app's cannot be duplicated here", nil)
	return c.keep(fd)
}

// entitled: an app of another user must not get from grace a port that it may not bind itself.
func (c *captureHandler) entitled(at netip.AddrPort) bool {
	return c.apps.Options.User == "" && c.apps.Options.Group == "" || int(at.Port()) >= firstUnprivilegedPort()
}

// firstUnprivilegedPort is 1024 where nothing else was set.
func firstUnprivilegedPort() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	port, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || err2 != nil {
		return 1024
	}
	return port
}

func (c *captureHandler) keep(fd int) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	c.fresh[stat.Ino] = fd
	c.apps.noteChange()
	return nil
}

// listen has the socket listen in grace, which keeps it. The app's own call then
// does no more to it than to make a unix socket show its clients the app as their
// peer, and not grace.
func (c *captureHandler) listen(call capture.Call) error {
	inode, err := call.Inode()
	if err != nil {
		return c.pass(call, err)
	}
	fd, err := c.duplicate(call, inode)
	if errors.Is(err, capture.ErrNotPermitted) && !c.apps.Steering.Awaits(inode) {
		return call.Continue() // no bind has made it one of grace's, or it listens again
	}
	if err != nil {
		return c.pass(call, err)
	}
	err = c.apps.Steering.Listen(c.app.member(), fd, call.Backlog())
	if err == nil {
		c.apps.noteChange() // before the app can be ready, which waits for what was noted to be written
		c.apps.Post(machine.Opened{Instance: c.app.start.Instance})
		defer c.app.noteListen()
	}
	if err == nil || errors.Is(err, steering.ErrNotSteered) {
		return call.Continue()
	}
	c.tell("the app cannot listen", err)
	errno := syscall.EADDRINUSE
	errors.As(err, &errno)
	return call.Return(errno)
}

func (c *captureHandler) duplicate(call capture.Call, inode uint64) (int, error) {
	if fd, ok := c.fresh[inode]; ok {
		delete(c.fresh, inode)
		return fd, nil
	}
	return call.Duplicate()
}

// pass leaves a call to the kernel, and says why once if that is not the app's own mistake. With
// --capture on a socket that cannot be captured is none.
func (c *captureHandler) pass(call capture.Call, why error) error {
	switch {
	case errors.Is(why, syscall.EMFILE), errors.Is(why, syscall.ENFILE):
		c.tell("a socket of the app is not captured", why)
		return call.Continue()
	case !errors.Is(why, capture.ErrNotPermitted):
		return call.Continue()
	}
	c.apps.Post(machine.Uncaptured{Why: why.Error()})
	if c.apps.Options.Capture == CaptureOn {
		return call.Return(syscall.EPERM)
	}
	return call.Continue()
}

func (c *captureHandler) tell(text string, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if !c.told[text+why] {
		c.told[text+why] = true
		c.apps.Post(machine.Noticed{Text: text, Why: why})
	}
}

// Live gives what tells whether any process of the app still has a socket. One look can
// miss who has it. A bind waits for the answer, so the second comes at once.
func Live(unowned func([]uint64) []uint64) func(steering.InstanceKey, uint64) bool {
	return func(_ steering.InstanceKey, inode uint64) bool {
		return !inTwoLooks(func() bool { return len(unowned([]uint64{inode})) > 0 })
	}
}

// inTwoLooks reports whether each of two looks in a row saw it.
func inTwoLooks(seen func() bool) bool {
	for range 2 {
		if !seen() {
			return false
		}
	}
	return true
}

// refused reports whether the system does not let grace capture. A want of memory or
// descriptors passes, and says nothing of the next start.
func refused(err error) bool {
	failed := (*childproc.StartError)(nil)
	passing := []syscall.Errno{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE}
	return errors.As(err, &failed) && failed.Step == "seccomp" && !slices.Contains(passing, failed.Errno)
}

// launch starts the process. Where the system does not let grace capture it, it is
// started once more without, unless --capture on demands it.
func (a *Host) launch(app *InstanceProcess, spec childproc.Spec) error {
	p, err := a.Reaper.Start(spec)
	if err != nil {
		return err
	}
	app.processes = []*childproc.Process{p}
	if !spec.Capture {
		return nil
	}
	if app.calls, err = p.Captured(); err == nil {
		app.captureHandler = newCaptureHandler(a, app)
		app.answer()
		return nil
	}
	if a.Options.Capture == CaptureOn || !refused(err) {
		return nil // the end of the process tells
	}
	if _, err := p.Wait(); err != nil {
		return err
	}
	a.ReportError(fmt.Sprintf("cannot reap process %d", p.PID), p.Reap())
	app.processes = nil
	a.uncapturable.Store(true)
	go a.Post(machine.Uncaptured{Why: err.Error()})
	spec.Capture, spec.NoNewPrivs = false, a.Options.NoNewPrivs.wanted(false)
	return a.launch(app, spec)
}
