package supervisor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/gracerun/grace/supervisor/reexec"
	"golang.org/x/sys/unix"
)

// handover is the way from this grace process to the next.
type handover struct {
	service *service
	state   *handoverState // what was left, once somebody has taken it
	pid     int            // of who has
	spent   time.Duration  // on those that were cut
}

// inPlace reports whether the next grace process has to be this process. A service manager that
// speaks sd_notify learns of another pid; nobody else does: for a shell, a container's
// init or a supervisor that waits for its child the end of this process is the end.
func inPlace() bool { return os.Getpid() == 1 || os.Getenv("NOTIFY_SOCKET") == "" }

func (h *handover) left() bool { return h.state != nil }

// rest waits for the hooks: their output is read here.
func (h *handover) rest() <-chan struct{} { return h.service.hooks.Rest() }

// suspend has the apps' messages and calls wait.
func (h *handover) suspend() <-chan struct{} {
	s, still := h.service, make(chan struct{})
	silence := s.apps.Suspend()
	go func() {
		defer close(still)
		s.endpoint.rest()
		if err := s.listenerWatch.close(); err != nil {
			s.loop.post(machine.Noticed{Text: "cannot end the watch of the listeners", Why: err.Error()})
		}
		silence()
	}()
	return still
}

// resume comes too when nothing was suspended, and when another grace process has taken over.
func (h *handover) resume() {
	s := h.service
	if h.left() {
		return
	}
	s.apps.Resume()
	if !s.loop.over { // or the rest may be under way still
		s.endpoint.resume()
	}
	select {
	case <-s.listenerWatch.ended:
		listenerWatch, err := openListenerWatch(s.listeners, s.loop.post)
		if err != nil {
			s.apps.ReportError("cannot watch the listeners", err)
			return
		}
		s.listenerWatch = listenerWatch
	default:
	}
}

// handOver gives everything away; if nobody takes it, this grace process has it all still.
func (h *handover) handOver(m machine.Snapshot, p *parting) machine.Event {
	s := h.service
	select {
	case <-s.apps.Rest():
	case <-p.cut:
		return machine.ReexecDelayed{}
	}
	if s.hooks.Open.Load() > 0 || !s.apps.Suspended() {
		return machine.ReexecDelayed{}
	}
	s.apps.Farewells.Learn()
	s.reaper.Suspend()
	began := time.Now()
	d, err := h.describe(m)
	if err == nil {
		h.pid, err = h.giveOrCut(d, p)
	}
	if err != nil {
		h.takeBack(d)
		return h.failed(err, time.Since(began), p)
	}
	h.state = d
	return machine.Reexeced{PID: h.pid}
}

// failed has a handover that was cut begun again, until it has had its time.
func (h *handover) failed(err error, took time.Duration, p *parting) machine.Event {
	select {
	case <-p.cut:
		if h.spent += took; h.spent < reexec.Patience {
			return machine.ReexecDelayed{}
		}
		err = fmt.Errorf("%s has not taken over within %s", h.service.transport.Program, reexec.Patience)
	default:
	}
	h.spent = 0
	return machine.ReexecFailed{Why: err.Error()}
}

var errCut = errors.New("grace had to handle another event first")

// giveOrCut ends all that the next grace process has started where it does not take over.
func (h *handover) giveOrCut(d *handoverState, p *parting) (pid int, err error) {
	given, swept := make(chan struct{}), make(chan error, 1)
	go func() { swept <- h.sweepWhenCut(p, given) }()
	pid, err = h.give(d, p)
	close(given)
	if failed := <-swept; failed != nil {
		h.service.apps.ReportError("cannot kill what the successor has started", failed)
	}
	if err != nil {
		h.service.apps.ReportError("cannot kill what the successor has started", h.service.reaper.KillSuccessors(reexec.Variable))
	}
	return pid, err
}

// sweepWhenCut goes on until the handover ends: a successor may be just about to start.
func (h *handover) sweepWhenCut(p *parting, given <-chan struct{}) error {
	select {
	case <-p.cut:
	case <-given:
		return nil
	}
	for {
		if err := h.service.reaper.KillSuccessors(reexec.Variable); err != nil {
			return err
		}
		select {
		case <-given:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (h *handover) takeBack(d *handoverState) {
	if d != nil && d.Host.Steering != nil {
		h.service.steering.Resume()
	}
	h.service.reaper.Resume()
}

// describe suspends the steering, if it gives a document.
func (h *handover) describe(m machine.Snapshot) (*handoverState, error) {
	s := h.service
	d := &handoverState{Version: stateVersion, Grace: s.options.Version, PID: os.Getpid(), Machine: m}
	d.Stored = s.store.names()
	d.Host = host.HostState{
		Runtime: s.runtime.Path, RuntimeLock: s.runtime.Lock, Hangup: s.signals.catches(syscall.SIGHUP),
		NotOurChildren: s.notOurChildren,
	}
	for _, l := range s.listeners {
		d.Host.Listeners = append(d.Host.Listeners, l.State())
	}
	if s.metrics != nil {
		state := s.metrics.State()
		d.Host.Metrics = &state
	}
	if socket := s.endpoint.current(); socket != nil {
		listener, lock := socket.Descriptors()
		d.Host.Control = &host.ControlState{Path: socket.Path, Listener: listener, Lock: lock}
	}
	if err := s.apps.Describe(&d.Host); err != nil {
		return nil, err
	}
	if s.steering == nil {
		return d, nil
	}
	state, err := s.steering.Suspend()
	if err != nil {
		return nil, err
	}
	d.Host.Steering = &state
	return d, nil
}

// give returns when the next grace process can take over.
func (h *handover) give(d *handoverState, p *parting) (pid int, err error) {
	e, err := d.snapshot()
	if err != nil {
		return 0, err
	}
	if inPlace() {
		if err := h.service.transport.Try(e); err != nil {
			return 0, err
		}
		if !p.agree() {
			return 0, errCut
		}
		return os.Getpid(), nil
	}
	if pid, err = h.service.transport.ByAnother(e, p.agree); err == nil {
		h.service.notifier.follow(pid)
	}
	return pid, err
}

// leave lets the last words out, and gives the process up.
func (h *handover) leave() error {
	s := h.service
	s.reaper.Resume()      // somebody may be at it
	s.apps.EndReaping()    // zombies stay children of who replaces this process in place, and he does not know of them
	_ = s.endpoint.leave() // nothing depends on it any more
	if s.exporter != nil {
		_ = s.exporter.close()
	}
	late := s.signals.stop()
	s.notifier.close()
	if !inPlace() {
		for _, sig := range late {
			_ = unix.Kill(h.pid, sig) // it may have ended by now, like any process
		}
		return nil
	}
	for _, sig := range late {
		h.state.Host.Signals = append(h.state.Host.Signals, int(sig))
	}
	return &Replacement{s.transport, h.state}
}

// Replacement is how Run ends where another grace process is to take over in this process. Nothing
// of this one is at work any more but what its caller has begun.
type Replacement struct {
	transport *reexec.Transport
	state     *handoverState
}

func (*Replacement) Error() string { return "another grace process takes over" }

// Exec puts the other grace process in place of the program; it returns only if that failed.
func (r *Replacement) Exec() error {
	e, err := r.state.snapshot()
	if err == nil {
		err = r.transport.InPlace(e)
	}
	return fmt.Errorf("cannot execute the new grace: %w", err)
}

// succeed goes on with what another grace process has left.
func (s *service) succeed(before *reexec.Predecessor) (int, error) {
	d, err := read(before.Document)
	if err == nil {
		err = s.inherit(d, before)
	}
	if err != nil {
		err = fmt.Errorf("cannot take over from the running grace: %w", err)
		before.Refuse(err)
		return machine.StatusFailure, err
	}
	if err := before.Accept(); err != nil || before.Trial() {
		return 0, err
	}
	s.openStore(d.Stored)
	s.settleIn(d, before.Same())
	status, err := s.serve(func() {
		s.notifier.resume(d.Machine.Current)
		farewellLoader{s}.begin() // the app serves already
		for _, sig := range d.Host.Signals {
			go s.loop.post(s.signals.meaning(syscall.Signal(sig)))
		}
	})
	if s.listenerWatch == nil || s.left() { // the app lives, and its sockets stay
		return status, err
	}
	return status, errors.Join(err, s.close())
}

func (s *service) left() bool { return s.handover.left() }

// inherit makes all parts anew from the state. It changes nothing that the old grace process
// has.
func (s *service) inherit(d *handoverState, before *reexec.Predecessor) error {
	return s.inheritAll(d, before.Same(), before.Files)
}

func (s *service) inheritAll(d *handoverState, same bool, files socket.Descriptors) (err error) {
	left := d.Host
	s.notOurChildren, s.uncapturing = !same || left.NotOurChildren, left.Uncapturing()
	if s.reaper, err = childproc.NewReaper(); err != nil {
		return err
	}
	for _, state := range left.Listeners {
		l, err := socket.TakeOverListener(state, files)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	if left.Metrics != nil {
		if s.metrics, err = socket.TakeOverListener(*left.Metrics, files); err != nil {
			return err
		}
	}
	if left.Steering != nil {
		if s.steering, err = steering.TakeOverSteering(*left.Steering, files, host.Live(s.unowned)); err != nil {
			return err
		}
	} else if s.steering, err = host.OpenSteering(s.options.Options, host.Live(s.unowned)); err != nil { // a grace process before captured less
		return err
	}
	s.runtime.Path = left.Runtime
	if left.RuntimeLock > 0 { // a grace process before had none
		if s.runtime.Lock, err = files.Take(left.RuntimeLock); err != nil {
			return err
		}
	}
	if launch, ok := left.Launches[d.Machine.Current]; ok {
		s.first = launch.Launch()
	} else if s.first, err = host.Resolve(s.options.Options); err != nil {
		return err
	} else {
		s.first.Program.Close() // the hooks' shell needs none
	}
	if left.Control != nil {
		if err := left.Control.Take(files); err != nil {
			return err
		}
	}
	s.assemble()
	if err := s.inheritApps(d, same, files); err != nil {
		return err
	}
	for _, unknown := range files { // a newer grace process would have had a use for them
		unix.Close(unknown)
	}
	return nil
}

func (s *service) inheritApps(d *handoverState, same bool, files socket.Descriptors) error {
	if err := s.apps.TakeOver(d.Host, d.PID, !same, files); err != nil {
		return err
	}
	m, actions, err := machine.Restore(s.options.Policy, d.Machine, time.Now())
	if err != nil {
		return err
	}
	s.loop.machine = m
	s.loop.begin = func() []machine.Action {
		s.apps.CarryOn(d.Machine)
		why := machine.Said(fmt.Sprintf("from grace %s, pid %d", d.Grace, d.PID))
		return append([]machine.Action{machine.Report{Fact: machine.TakenOver, Generation: d.Machine.Current, PID: os.Getpid(), Why: why}}, actions...)
	}
	return nil
}

// settleIn takes what only one grace process can have, once the old one has gone. What fails is no
// reason to leave the app alone.
func (s *service) settleIn(d *handoverState, same bool) {
	var errs []error
	if d.Host.Hangup && same { // it was ignored while nobody could heed it
		s.signals.catchHangUp()
	}
	var err error
	if s.pidFile, err = writePIDFile(s.options.PIDFile); err != nil {
		s.pidFile = pidFile{s.options.PIDFile} // what is there may have this pid
		errs = append(errs, err)
	}
	if c := d.Host.Control; c != nil {
		if s.socket, err = control.Adopt(c.Path, c.Listener, c.Lock); err != nil {
			errs = append(errs, err)
		} else {
			s.options.Name = s.socket.Name
			s.hooks.Name = s.socket.Name
		}
	}
	errs = append(errs, inheritWatchdog(d.PID))
	if err := errors.Join(errs...); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot take over everything from the old grace process")
	}
}
