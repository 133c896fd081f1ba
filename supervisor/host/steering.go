package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// inOrder does what changes or waits for the steering. Its lock is held for long where an app binds while grace looks for
// who has its sockets, or where the kernel lists many of them.
func (a *Host) inOrder(cannot string, work func() error) <-chan struct{} {
	return a.sequence.do(Guard(func() {
		a.ReportError(cannot, work())
		a.noteChange()
	}, a.Notice(cannot)))
}

// SteeringCopy is the steering at one moment, for who adopts the app.
type SteeringCopy struct {
	State steering.SteeringState
	Err   error
}

// CopySteering gives the steering as it is when all has been done that the loop has asked for until now, and nothing that it asks for
// later: a state has the generations of instances from the machine, and from here who gets connections. It is the loop's.
func (a *Host) CopySteering(show func(inode uint64, fd int)) <-chan SteeringCopy {
	copied := make(chan SteeringCopy, 1)
	a.sequence.do(func() {
		state, err := a.Steering.Copy(show)
		copied <- SteeringCopy{state, err}
	})
	return copied
}

// Steer posts steered always: an upgrade, or a stop, waits for it.
func (a *Host) Steer(s machine.Steer) {
	if s.Beside == 0 {
		a.endExamining()
	}
	var others []int // generation 0 is none
	for other := range a.Launches {
		if other != s.Generation && other != s.Beside {
			others = append(others, other)
		}
	}
	a.sequence.do(func() {
		why := ""
		Guard(func() { why = a.cutOver(s) }, func(panicked string) { why = panicked })()
		a.noteChange()
		a.Post(machine.Steered{Generation: s.Generation, Why: why})
	})
	a.countHandshakes(others)
}

// noteChange says that the steering has changed.
func (a *Host) noteChange() {
	if a.Changed != nil {
		a.Changed()
	}
}

// awaitNoted returns when what was noted before was written down.
func (a *Host) awaitNoted() {
	if a.Noted != nil {
		a.Noted()
	}
}

// awaitSaved returns when the state of now was written down.
func (a *Host) awaitSaved() {
	if a.Saved != nil {
		a.Saved()
	}
}

// saving gives a channel that is closed when awaitSaved would return.
func (a *Host) saving() <-chan struct{} {
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		a.awaitSaved()
	}()
	return saved
}

// cutOver gives the reason why new connections do not go to the generation.
func (a *Host) cutOver(to machine.Steer) string {
	if to.Generation == 0 {
		a.ReportError("cannot turn new connections away", a.Steering.TurnAway())
		return ""
	}
	kept, err := a.Steering.Steer(steering.Split{Generation: to.Generation, Beside: to.Beside, Share: int(to.Share), ByClient: a.Options.CanaryByClient})
	a.ReportError("cannot prevent that a generation which ends removes a path", a.Steering.Unkept())
	for _, address := range kept {
		a.Post(machine.Noticed{Text: "new connections to an address still go to the old generation", Why: fmt.Sprintf("nothing of generation %d listens on %s", to.Generation, address)})
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// countHandshakes counts those that are open now: their connections will come to these generations, which get no others.
func (a *Host) countHandshakes(generations []int) {
	a.inOrder("cannot count waiting connections", func() (err error) {
		for _, generation := range generations {
			_, failed := a.Steering.Queued(generation)
			err = errors.Join(err, failed)
		}
		return err
	})
}

func (a *Host) LetGo(l machine.LetGo) {
	a.inOrder(fmt.Sprintf("cannot release the sockets of generation %d", l.Generation), func() error {
		var errs []error
		for _, shared := range a.Listeners {
			if l.Shared {
				errs = append(errs, shared.LetGo())
			}
		}
		if a.Steering != nil {
			errs = append(errs, a.Steering.LetGo(l.Generation))
		}
		return errors.Join(errs...)
	})
}

const (
	// quietFor is how long a connection must have been without a byte to be taken
	// for idle.
	quietFor = time.Second
	// unclearFor is the same for all where it is unclear of one whether its client
	// still waits: the time of a slow request.
	unclearFor = 10 * time.Second
	// observePause is between two looks, each of which takes up to 40 ms for 10,000
	// connections.
	observePause = 250 * time.Millisecond
)

// emptying is a generation that gets no new connections and is watched until nothing goes on in it.
type emptying struct {
	*Host
	machine.Observe
	patience time.Time // until when connections that are not idle are waited for
	seen     *sockdiag.Observation
}

// Observe posts quieted once nothing goes on in the generation any more, and until then awaited
// as often as connections are seen that nobody is there to accept. It begins when the cutovers before it have been: until
// then new connections come.
func (a *Host) Observe(o machine.Observe) {
	a.Launches[o.Generation].leaves = true
	for _, app := range a.Running {
		if app.generation == o.Generation {
			app.leave()
		}
	}
	ctx, begin := a.Launches[o.Generation].ctx, a.sequence.rest()
	e := &emptying{a, o, time.Now().Add(o.Idle), &sockdiag.Observation{}}
	go Guard(func() {
		<-begin
		for !e.over() {
			if a.awaited(o.Generation) {
				a.Post(machine.Awaited{Generation: o.Generation})
			}
			if pause(ctx, observePause) != nil {
				return
			}
		}
		a.Post(machine.Quieted{Generation: o.Generation, PIDs: o.PIDs})
	}, a.Notice("cannot see whether connections are idle"))()
}

// over reports whether the generation has done what it had to do. One busy connection is enough to say no.
func (e *emptying) over() bool {
	patient := time.Now().Before(e.patience)
	if patient && e.seen.StillBusy(quietFor) {
		return false
	}
	return e.accepted(e.Generation) && (!patient || e.quiet())
}

// accepted reports whether nothing waits in the generation's queues. It comes before
// idle: what is accepted meanwhile is seen among the connections.
func (a *Host) accepted(generation int) bool {
	queued, err := a.Steering.Queued(generation)
	return err == nil && queued == 0
}

func (a *Host) awaited(generation int) bool {
	awaited, err := a.Steering.Awaited(generation)
	return err == nil && awaited
}

// quiet takes two looks. One can miss a process that is just being born, with the
// connection that its parent has accepted for it.
func (e *emptying) quiet() bool { return inTwoLooks(e.idle) }

// idle looks at the connections. Of one at a path nobody can tell.
func (e *emptying) idle() bool {
	trees, err := e.livingTrees(e.PIDs)
	if err != nil {
		return false
	}
	addresses := e.Steering.Addresses(e.Generation)
	if accepted, err := e.Steering.Accepted(e.Generation, trees); err != nil || accepted > 0 {
		return false
	}
	seen, err := sockdiag.Observe(trees, addresses)
	if err != nil {
		return false
	}
	e.seen = seen
	traffic := seen.Traffic(quietFor)
	if traffic.Busy > 0 || traffic.Unclear == 0 {
		return traffic.Busy == 0
	}
	return e.Farewells.idle(e.Generation) || seen.Traffic(unclearFor).Busy == 0
}

// treesOf lists what can be listed, and gives the first error of what cannot.
func (a *Host) treesOf(roots []int) (pids []int, failed error) {
	for _, root := range roots {
		tree, err := a.Reaper.Tree(root)
		if failed == nil {
			failed = err
		}
		pids = append(pids, tree...)
	}
	return pids, failed
}

// livingTrees leaves out what has ended.
func (a *Host) livingTrees(roots []int) (pids []int, err error) {
	for _, root := range roots {
		tree, err := a.Reaper.Tree(root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		pids = append(pids, tree...)
	}
	return pids, nil
}

// OpenSteering gives nil where nothing is steered.
func OpenSteering(o Options, live func(steering.InstanceKey, uint64) bool) (*steering.Steering, error) {
	if !o.steers() {
		return nil, nil
	}
	s, err := steering.NewSteering(live)
	if err != nil {
		return nil, err
	}
	for _, path := range o.CaptureUnix {
		s.Declare(within(o.Dir, path))
	}
	for _, a := range o.Listen {
		if takeablePath(a) && (a.Steer || o.Takeover != TakeoverNone) {
			s.Declare(a.Addr)
		}
	}
	return s, nil
}

// reserved is no instance, but stands for those of a grace process that was stopped. What is taken over has places from 0 on.
var reserved = steering.InstanceKey{Generation: machine.Foreign, Instance: -1}

// Reserve has the addresses of an app that was stopped wait for the one that is started now. Where grace binds addresses itself, or takes them
// over, these would be in the way.
func Reserve(s *steering.Steering, o Options, fds []int) error {
	var fit []int
	for _, fd := range fds {
		if s == nil || len(o.Listen) > 0 || o.Takeover != "" || !shareable(fd) {
			unix.Close(fd)
			continue
		}
		fit = append(fit, fd)
	}
	if len(fit) == 0 {
		return nil
	}
	return s.Reserve(reserved, fit)
}

// shareable: the kernel lets only sockets of one user share an address, and only root can change whose they are.
func shareable(fd int) bool {
	var stat unix.Stat_t
	return unix.Fstat(fd, &stat) == nil && (os.Geteuid() == 0 || int(stat.Uid) == os.Geteuid())
}

func CloseSteering(s *steering.Steering) error {
	if s == nil {
		return nil
	}
	return s.Close()
}

// WatchSteering ends when the steering is closed.
func WatchSteering(s *steering.Steering, post func(machine.Event)) {
	for s != nil {
		left, err := s.Wait()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			post(machine.Noticed{Text: "cannot watch the app's sockets", Why: err.Error()})
			return
		}
		post(machine.Closed{Generation: left.Generation, Address: left.At()})
	}
}

// vacate lets clients wait for the instance that takes the place of one that has
// gone.
func (a *Host) vacate(app *InstanceProcess) {
	if a.Steering != nil {
		a.inOrder("cannot move new connections away from an instance", func() error { return a.Steering.Vacate(app.member()) })
	}
}

// confirm says that the instance serves: what it has taken up is its own.
func (a *Host) confirm(app *InstanceProcess) {
	a.Takeover.end()
	if a.Steering != nil {
		a.ReportError("cannot send new connections to an instance", a.Steering.Ready(app.member()))
		a.ReportError("cannot give up the sockets of the app that was stopped", a.Steering.Retire(reserved))
	}
}

func (a *Host) retireSockets(generation int) {
	if a.Steering == nil {
		return
	}
	a.inOrder(fmt.Sprintf("cannot give up the sockets of generation %d", generation), func() error { return a.Steering.RetireAll(generation) })
}
