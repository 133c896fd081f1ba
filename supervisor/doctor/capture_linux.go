package doctor

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"golang.org/x/sys/unix"
)

// capture starts a patient that makes its own listener, and takes part in it as
// grace does.
func (e *examination) capture() {
	needed := capture.NeedsNoNewPrivs()
	b, err := e.admit(withCaptured, func(spec *childproc.Spec) { spec.Capture, spec.NoNewPrivs = true, needed })
	if err != nil {
		e.add(e.notCaptured(err))
		return
	}
	calls, err := b.process.Captured()
	if err != nil {
		_ = b.dismiss() // it has told its reason already
		e.add(e.notCaptured(err))
		return
	}
	e.add(captured(needed))
	n := nurse{calls: calls, own: -1}
	n.attend()
	if n.failed == nil {
		n.failed = n.tryService()
	}
	err = errors.Join(n.close(), b.dismiss())
	if n.failed == nil {
		n.failed = err
	}
	e.add(e.memory(n), e.sockets(n))
}

func captured(noNewPrivs bool) Finding {
	f := Finding{Mechanism: "seccomp listener", State: OK, serves: capturing, Means: "grace is asked about the sockets that an app binds itself"}
	if noNewPrivs {
		f.State = Limited
		f.Means += "; this takes no-new-privs, by which setuid programs such as sudo give the app no rights"
		f.Do = "if it needs them, start grace as root with CAP_SYS_ADMIN, or give --listen"
	}
	return f
}

func (e *examination) notCaptured(err error) Finding {
	f := Finding{Mechanism: "seccomp listener", State: Missing, serves: capturing, Means: err.Error()}
	var start *childproc.StartError
	switch {
	case errors.Is(err, capture.ErrNested):
		f.Means = "a grace, or another supervisor with a seccomp listener, is around this one, and the kernel allows one"
		f.Do = "have this grace hold the sockets (--listen), or give the one around it --capture off"
	case errors.As(err, &start) && start.Step == "seccomp" && e.place.filtered:
		f.Do = "have grace hold the sockets (--listen), or allow seccomp with a listener in the seccomp profile that is in force here"
	default:
		f.Do = "have grace hold the sockets (--listen), or use Linux 5.9 or newer on amd64 or arm64"
	}
	return f
}

// nurse answers the calls of a patient that makes one listener.
type nurse struct {
	calls             *capture.Listener
	own               int   // our descriptor of the patient's listener
	memory, duplicate error // what was not permitted
	failed            error // what else went wrong
}

func (n *nurse) attend() {
	for n.failed == nil {
		call, err := n.calls.Next()
		switch {
		case err != nil:
			n.failed = fmt.Errorf("the app has ended before it listened: %w", err)
		case call.Syscall() == capture.Bind:
			n.failed = n.bind(call)
		default:
			n.failed = n.listen(call)
			return
		}
	}
}

func (n *nurse) bind(call capture.Call) error {
	if _, n.memory = call.Addr(); n.memory != nil {
		return call.Continue()
	}
	if n.own, n.duplicate = call.Duplicate(); n.duplicate == nil {
		return call.Continue()
	}
	var err error
	if n.own, err = bindLocally(0); err != nil {
		return err
	}
	return call.Install(n.own)
}

func (n *nurse) listen(call capture.Call) error {
	if n.own < 0 {
		return call.Continue()
	}
	if err := unix.Listen(n.own, call.Backlog()); err != nil {
		return err
	}
	return call.Return(0)
}

// tryService wants the patient to serve what comes to our descriptor.
func (n *nurse) tryService() error {
	if n.own < 0 {
		return nil
	}
	address, err := boundTo(n.own)
	if err != nil {
		return err
	}
	conn, err := call(address)
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

func (n *nurse) close() error {
	err := n.calls.Close()
	if n.own >= 0 {
		err = errors.Join(err, unix.Close(n.own))
	}
	return err
}

func (e *examination) memory(n nurse) Finding {
	f := Finding{Mechanism: "app's memory", State: OK, serves: capturing, Means: "grace can read which address an app binds"}
	if n.memory != nil {
		f.State = Missing
		f.Means = fmt.Sprintf("grace takes no part in the app's sockets, because it cannot read which address is bound: %v", n.memory)
		f.Do = "have grace hold the sockets (--listen), or " + e.place.tracing()
	}
	return f
}

func (e *examination) sockets(n nurse) Finding {
	f := Finding{Mechanism: "app's sockets", State: OK, serves: capturing, Means: "an app has served from a socket of its own that grace has a part in (pidfd_getfd)"}
	switch {
	case n.memory != nil:
		f.State, f.Means = Missing, "not tried, for want of the app's memory"
	case n.failed != nil:
		f.State, f.Means, f.Do = Missing, fmt.Sprintf("an app could not serve: %v", n.failed), "have grace hold the sockets (--listen)"
	case n.duplicate != nil:
		f.State = Limited
		f.Means = fmt.Sprintf("grace gives apps sockets of its own in place of theirs, which all can use but those that put a socket into epoll before they bind it: %v", n.duplicate)
		f.Do = "for such an app have grace hold the sockets (--listen), or " + e.place.tracing()
	}
	return f
}
