package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// notifyReader listens to what one instance says on its NOTIFY_SOCKET. It belongs to one
// goroutine.
type notifyReader struct {
	apps        *Host
	instance    int
	socket      *childproc.NotifySocket
	mains       []int         // the main process and those that were it before
	notOurChild bool          // it was started by another process than this one
	before      int           // the grace before this one, whose barriers may be left; 0 if there was none
	told        bool          // that a message was refused
	said        bool          // READY=1
	ready       chan struct{} // closed then
	passed      chan struct{} // gets one for each barrier of grace's own
	main        atomic.Int64  // the last of mains, for those who look at it
}

func newNotifyReader(a *Host, instance int, socket *childproc.NotifySocket, main int) *notifyReader {
	e := &notifyReader{apps: a, instance: instance, socket: socket, mains: []int{main}, ready: make(chan struct{}), passed: make(chan struct{}, 1)}
	e.main.Store(int64(main))
	return e
}

// catchUpLimit is for a socket that others keep full.
const catchUpLimit = time.Second

// catchUp returns when all has been heeded that was said before: a datagram of
// grace's own comes after the last words of a process that has ended, which may
// name its successor.
func (e *notifyReader) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unixgram", e.socket.Path())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(catchUpLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "X_GRACE_BARRIER=1"); err != nil {
		return err
	}
	select {
	case <-e.passed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listen ends when the instance is released, or its socket suspended.
func (e *notifyReader) listen() {
	for {
		m, err := e.socket.Receive(e.allowed)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			e.apps.Post(machine.Noticed{Text: "cannot read NOTIFY_SOCKET", Why: err.Error()})
			return
		}
		e.heed(m)
	}
}

// refuse speaks once: a flood of messages must not become one of lines.
func (e *notifyReader) refuse(why string) {
	if !e.told {
		e.told = true
		e.apps.Post(machine.Noticed{Text: "NOTIFY_SOCKET message refused", Why: why + "; further messages that grace refuses are not logged"})
	}
}

func (e *notifyReader) heed(m childproc.Message) {
	if m.PID == e.before && m.PID != os.Getpid() {
		return
	}
	if m.PID == os.Getpid() {
		select {
		case e.passed <- struct{}{}:
		default: // who waited for it has given up
		}
		return
	}
	if m.MainPID != 0 && m.MainPID != e.mains[len(e.mains)-1] {
		e.move(m.MainPID)
	}
	if m.Extend > 0 {
		e.apps.Post(machine.Extended{Instance: e.instance, By: m.Extend})
	}
	if m.Watchdog {
		e.apps.Post(machine.Pinged{Instance: e.instance})
	}
	if m.Stopping && m.PID == e.mains[len(e.mains)-1] { // a helper's end is not the app's
		e.apps.Post(machine.Withdrawn{Instance: e.instance})
	}
	if m.Drains {
		e.apps.Post(machine.Exempted{Instance: e.instance})
	}
	if m.InFlight != nil {
		e.apps.Post(machine.Tallied{Instance: e.instance, InFlight: *m.InFlight})
	}
	if m.Status != nil {
		e.apps.Post(machine.Described{Instance: e.instance, Text: *m.Status})
	}
	if m.Ready && !e.said {
		e.said = true
		close(e.ready)
		e.apps.Post(machine.Notified{Instance: e.instance})
	}
}

func (e *notifyReader) allowed(pid int) bool {
	if pid == os.Getpid() || pid == e.before || e.belongs(pid) {
		return true
	}
	e.refuse(fmt.Sprintf("process %d does not belong to instance %d", pid, e.instance))
	return false
}

// belongs reports whether a process is the instance's: a main process, one below
// it, or one whose parent has ended but that still has the instance's own socket
// in the environment it was started with.
func (e *notifyReader) belongs(pid int) bool {
	for _, main := range e.mains {
		if below, err := childproc.Descends(pid, main); err == nil && below {
			return true
		}
	}
	return e.mayAdopt(pid) && e.inherited(pid)
}

// mayAdopt is about orphans: of apps that were another process's children anybody may
// have taken them in.
func (e *notifyReader) mayAdopt(pid int) bool {
	if e.notOurChild {
		return true
	}
	orphan, err := childproc.Descends(pid, os.Getpid())
	return err == nil && orphan
}

func (e *notifyReader) inherited(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && strings.Contains("\x00"+string(env), "\x00NOTIFY_SOCKET="+e.socket.Path()+"\x00")
}

// move has another process of the instance followed as its main one. It is
// checked again once a pidfd holds it: the number could have changed hands.
func (e *notifyReader) move(pid int) {
	p, err := e.apps.Reaper.Adopt(pid)
	if err != nil {
		e.apps.Post(machine.Noticed{Text: "MAINPID= refused", Why: err.Error()})
		return
	}
	if !e.belongs(pid) {
		e.apps.Post(machine.Noticed{Text: "MAINPID= refused", Why: fmt.Sprintf("process %d does not belong to instance %d", pid, e.instance)})
		p.Release()
		return
	}
	e.mains = append(e.mains, pid)
	e.main.Store(int64(pid))
	e.apps.Post(Adopted{machine.Moved{Instance: e.instance, PID: pid}, e.apps, p})
}

// Adopted is a moved with the process, which the host has to follow.
type Adopted struct {
	machine.Moved
	apps    *Host
	process *childproc.Process
}

// Follow watches the process from now on, as one that was started. It is the loop's.
func (d Adopted) Follow() { d.apps.follow(d.Instance, d.process) }
