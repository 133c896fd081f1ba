package doctor

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"golang.org/x/sys/unix"
)

// checkCapture starts a test app that makes its own listener, and takes part in it as
// grace does.
func (e *examination) checkCapture() {
	needed := capture.NeedsNoNewPrivs()
	p, err := e.start(withCaptured, func(spec *childproc.Spec) { spec.Capture, spec.NoNewPrivs = true, needed })
	if err != nil {
		e.add(e.notCaptured(err))
		return
	}
	calls, err := p.process.Captured()
	if err != nil {
		_ = p.end() // it has told its reason already
		e.add(e.notCaptured(err))
		return
	}
	e.add(captured(needed))
	a := answerer{calls: calls, own: -1}
	a.attend()
	if a.failed == nil {
		a.failed = a.tryService()
	}
	err = errors.Join(a.close(), p.end())
	if a.failed == nil || errors.Is(a.failed, io.EOF) && err != nil {
		a.failed = err // the end says more than that there was one
	}
	if a.asked {
		e.add(e.memory(a))
	}
	e.add(e.sockets(a))
}

func captured(noNewPrivs bool) Finding {
	f := Finding{Mechanism: "seccomp listener", State: OK, serves: capturing, Means: "grace can intercept the sockets that an app binds itself"}
	if noNewPrivs {
		f.State = Limited
		f.Means += "; this needs no_new_privs, so setuid programs such as sudo give the app no rights"
		f.Do = "if the app needs them, start grace as root with CAP_SYS_ADMIN, or use --listen"
	}
	return f
}

func (e *examination) notCaptured(err error) Finding {
	f := Finding{Mechanism: "seccomp listener", State: Missing, serves: capturing, Means: err.Error()}
	var start *childproc.StartError
	switch {
	case errors.Is(err, capture.ErrNested):
		f.Means = "this grace process runs under another grace process, or another program with a seccomp listener, and the kernel allows only one"
		f.Do = "let grace hold the sockets (--listen), or start the outer grace process with --capture off"
	case errors.As(err, &start) && start.Step == "seccomp" && e.environment.filtered:
		f.Do = "let grace hold the sockets (--listen), or allow seccomp with a listener in the seccomp profile of this container"
	default:
		f.Do = "let grace hold the sockets (--listen), or use Linux 5.9 or newer on amd64 or arm64"
	}
	return f
}

// answerer answers the calls of a test app that makes one listener.
type answerer struct {
	calls             *capture.Listener
	asked             bool  // about a bind
	own               int   // our descriptor of the test app's listener
	memory, duplicate error // what was not permitted
	failed            error // what else went wrong
}

func (a *answerer) attend() {
	for a.failed == nil {
		call, err := a.calls.Next()
		switch {
		case err != nil:
			a.failed = fmt.Errorf("the app ended before it listened: %w", err)
		case call.Syscall() == capture.Bind:
			a.failed = a.bind(call)
		default:
			a.failed = a.listen(call)
			return
		}
	}
}

func (a *answerer) bind(call capture.Call) error {
	a.asked = true
	if _, a.memory = call.Addr(); a.memory != nil {
		return call.Continue()
	}
	if a.own, a.duplicate = call.Duplicate(); a.duplicate == nil {
		return call.Continue()
	}
	var err error
	if a.own, err = bindLocally(0); err != nil {
		return err
	}
	return call.Install(a.own)
}

func (a *answerer) listen(call capture.Call) error {
	if a.own < 0 {
		return call.Continue()
	}
	if err := unix.Listen(a.own, call.Backlog()); err != nil {
		return err
	}
	return call.Return(0)
}

// tryService wants the test app to serve what comes to our descriptor.
func (a *answerer) tryService() error {
	if a.own < 0 {
		return nil
	}
	address, err := boundTo(a.own)
	if err != nil {
		return err
	}
	conn, err := dial(address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func boundTo(fd int) (string, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	at, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return "", fmt.Errorf("bound to %v", name)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)).String(), nil
}

func (a *answerer) close() error {
	err := a.calls.Close()
	if a.own >= 0 {
		err = errors.Join(err, unix.Close(a.own))
	}
	return err
}

func (e *examination) memory(a answerer) Finding {
	f := Finding{Mechanism: "app's memory", State: OK, serves: capturing, Means: "grace can read which address an app binds"}
	if a.memory != nil {
		f.State = Missing
		f.Means = fmt.Sprintf("grace cannot capture the app's sockets, because it cannot read the address that the app binds: %v", a.memory)
		f.Do = "let grace hold the sockets (--listen), or " + e.tracing()
	}
	return f
}

func (e *examination) sockets(a answerer) Finding {
	f := Finding{Mechanism: "app's sockets", State: OK, serves: capturing, Means: "a test app has served from a captured socket (pidfd_getfd)"}
	switch {
	case a.memory != nil:
		f.State, f.Means = Missing, "not tested, because grace cannot read the app's memory"
	case a.failed != nil:
		f.State, f.Means, f.Do = Missing, fmt.Sprintf("an app could not serve: %v", a.failed), "let grace hold the sockets (--listen)"
	case a.duplicate != nil:
		f.State = Limited
		f.Means = fmt.Sprintf("grace replaces the app's sockets by its own, which fails for apps that set options or fill an epoll set before bind: %v", a.duplicate)
		f.Do = "for such an app let grace hold the sockets (--listen), or " + e.environment.tracing()
	}
	return f
}
