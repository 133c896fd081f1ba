package doctor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/host"
)

// checkHeld starts a test app with a socket of ours, and reports whether apps can be
// started.
func (e *examination) checkHeld() bool {
	listener, err := bindHeld()
	if err != nil {
		e.add(noSocket(err))
		return false
	}
	defer listener.Close()
	n, err := e.openNotify()
	if err != nil {
		e.add(n.finding)
		return false
	}
	defer n.close()
	p, err := e.start(withHeld, func(spec *childproc.Spec) {
		spec.Files = []int{listener.FD()}
		spec.Env = append(spec.Env, "NOTIFY_SOCKET="+n.socket.Path())
	})
	if err != nil {
		e.add(e.failedToStart(err))
		return false
	}
	s, err := p.listen()
	if err != nil {
		e.add(e.failedToStart(errors.Join(p.end(), ignoreEnd(err))))
		return false
	}
	e.add(Finding{Mechanism: "starting an app", State: OK, serves: holding, Means: "apps start as " + e.appUser()})
	e.checkServing(p, listener)
	e.duplicated = farewell.MayDuplicate(p.process.PID)
	e.add(n.read(p.process.PID, s), e.lowPorts(s))
	if err := p.end(); err != nil {
		e.add(e.failedToStart(err))
	}
	return true
}

// ignoreEnd: that nothing more came is told by the end of the process.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func bindHeld() (*socket.Listener, error) {
	address, err := socket.ParseAddress("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return socket.Bind(address)
}

func noSocket(err error) Finding {
	return Finding{
		Mechanism: "held listeners", State: Missing, serves: holding, Means: err.Error(),
		Do: "check that the loopback interface is up, and that no seccomp profile or security module forbids sockets",
	}
}

func (e *examination) appUser() string {
	uid, whose := os.Geteuid(), "user %d, grace's own (use --user to test another)"
	if e.identity != nil {
		uid, whose = e.identity.UID, "user %d"
	}
	return fmt.Sprintf(whose, uid)
}

// checkServing looks at a test app that serves.
func (e *examination) checkServing(p *testApp, listener *socket.Listener) {
	pid := p.process.PID
	looked := lookFor(pid, listener.Inode())
	conn, err := dial(listener.Bound())
	if err != nil {
		e.add(noSocket(err))
		return
	}
	defer conn.Close()
	e.add(
		Finding{Mechanism: "held listeners", State: OK, serves: holding, Means: "a test app has served a connection from a socket that grace holds"},
		e.looking(looked),
		e.counting(pid, listener, looked),
	)
}

var errNotSeen = errors.New("the app waits on its socket, but grace does not see it")

// lookFor waits until the process is seen waiting on the socket.
func lookFor(pid int, inode uint64) error {
	detector := childproc.NewWaitDetector([]uint64{inode})
	for until := time.Now().Add(limit); time.Now().Before(until); time.Sleep(time.Millisecond) {
		seen, err := detector.Look([]int{pid})
		if err != nil || seen[0] {
			return err
		}
	}
	return errNotSeen
}

func (e *examination) looking(err error) Finding {
	f := Finding{Mechanism: "readiness by looking", State: OK, Means: "grace sees from outside when an app of this user serves"}
	if err != nil {
		f.State = Limited
		f.Means = fmt.Sprintf("without READY=1 or a probe, an app counts as ready after --ready-delay: %v", err)
		f.Do = "use --ready http://..., or let the app send READY=1, or " + e.tracing()
	}
	return f
}

// counting needs a connection to be there. It takes a look into the process too.
func (e *examination) counting(pid int, listener *socket.Listener, looked error) Finding {
	f := Finding{Mechanism: "counting connections", State: OK, Means: "grace sees how many connections an app still has (inet_diag)"}
	n, err := sockdiag.Connections([]int{pid}, []*socket.Listener{listener})
	if err == nil && n != 1 {
		err = fmt.Errorf("the kernel shows %d connections instead of 1", n)
	}
	if err == nil {
		return f
	}
	f.State = Limited
	f.Means = fmt.Sprintf("grace cannot see how many connections an app still has: %v", err)
	f.Do = "modprobe inet_diag tcp_diag on the host; in a container, allow netlink sockets in its seccomp profile"
	if looked != nil {
		f.Do = e.tracing()
	}
	return f
}

func (e *examination) lowPorts(s testAppReport) Finding {
	own := bindLow()
	f := Finding{Mechanism: "ports below 1024", State: OK, Means: "grace and the app may bind them"}
	switch {
	case own != 0 && s.LowPort != 0:
		f.State, f.Means = Missing, "neither grace nor the app may bind them: "+own.Error()
		f.Do = "sysctl net.ipv4.ip_unprivileged_port_start=" + fmt.Sprint(lowPort) + " (docker run --sysctl ...), or CAP_NET_BIND_SERVICE for grace: setcap, or AmbientCapabilities= in a unit"
	case own != 0:
		f.State, f.Means = Limited, "the app may bind them, grace may not: "+own.Error()
	case s.LowPort != 0:
		f.State, f.Means = Limited, "grace may bind them, the app's user may not: "+s.LowPort.Error()
		f.Do = "let grace hold them (--listen :80)"
	}
	return f
}

// notifyCheck are what comes to the NOTIFY_SOCKET of a test app.
type notifyCheck struct {
	socket  *childproc.NotifySocket
	remove  func() error // the directory
	finding Finding
}

// openNotify gives a finding with an error.
func (e *examination) openNotify() (*notifyCheck, error) {
	dir, remove := host.NewRuntimeDir(e.identity)
	n := &notifyCheck{remove: remove, finding: Finding{Mechanism: "NOTIFY_SOCKET", State: OK, Means: "apps reach grace at a socket in grace's own directory"}}
	if dir == "" {
		n.finding.Means = "grace can write to no directory, so apps reach it at an abstract address: they must run in grace's network namespace"
	}
	uid, gid := -1, -1
	if e.identity != nil {
		uid, gid = e.identity.UID, e.identity.GID
	}
	var err error
	if n.socket, err = childproc.OpenNotify(dir, uid, gid); err != nil {
		n.finding.State, n.finding.Means, n.finding.serves = Missing, err.Error(), holding
		n.finding.Do = "let grace write to /run or $TMPDIR"
		if e.identity != nil && errors.Is(err, os.ErrPermission) {
			n.finding.Do = asRoot
		}
		return n, errors.Join(err, remove())
	}
	return n, nil
}

func (n *notifyCheck) close() { _ = errors.Join(n.socket.Close(), n.remove()) }

// read takes what the test app has sent before it spoke.
func (n *notifyCheck) read(pid int, s testAppReport) Finding {
	err := errors.New(s.Notify)
	if s.Notify == "" {
		expire := time.AfterFunc(limit, func() { _ = n.socket.Close() })
		defer expire.Stop()
		_, err = n.socket.Receive(func(sender int) bool { return sender == pid })
	}
	if err == nil {
		return n.finding
	}
	if errors.Is(err, net.ErrClosed) {
		err = errors.New("no message has arrived")
	}
	n.finding.State = Limited
	n.finding.Means = fmt.Sprintf("READY=1 and the other messages of apps do not arrive: %v", err)
	n.finding.Do = "use --ready http://... or cmd:..., or let grace write to /run or $TMPDIR and the app's user enter that directory"
	return n.finding
}
