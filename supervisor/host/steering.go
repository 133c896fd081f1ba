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
)

// inOrder does what changes or waits for the steering. Its lock is held for long where an app binds while grace looks for
// who has its sockets, or where the kernel lists many of them.
func (a *Host) inOrder(cannot string, work func() error) <-chan struct{} {
	return a.sequence.do(Guard(func() {
		a.ReportError(cannot, work())
		a.noteChange()
	}, a.Notice(cannot)))
}

// Steer posts steered always: an upgrade, or a stop, waits for it.
func (a *Host) Steer(s machine.Steer) {
	var others []int // generation 0 is none
	for other := range a.Launches {
		if other != s.Generation {
			others = append(others, other)
		}
	}
	a.sequence.do(func() {
		why := ""
		Guard(func() { why = a.cutOver(s.Generation) }, func(panicked string) { why = panicked })()
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

// awaitSaved returns when what was noted before was written down.
func (a *Host) awaitSaved() {
	if a.Saved != nil {
		a.Saved()
	}
}

// cutOver gives the reason why new connections do not go to the generation.
func (a *Host) cutOver(generation int) string {
	if generation == 0 {
		a.ReportError("cannot turn new connections away", a.Steering.TurnAway())
		return ""
	}
	kept, err := a.Steering.Cutover(generation)
	for _, address := range kept {
		a.Post(machine.Noticed{Text: "new connections to an address still go to the old generation", Why: fmt.Sprintf("nothing of generation %d listens on %s", generation, address)})
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
	a.inOrder(fmt.Sprintf("cannot release the sockets of generation %d", l.Generation), func() error { return a.Steering.LetGo(l.Generation) })
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

// Observe posts quieted once nothing goes on in the generation any more, and until then awaited
// as often as connections are seen that nobody is there to accept. It begins when the cutovers before it have been: until
// then new connections come.
func (a *Host) Observe(o machine.Observe) {
	ctx, patience, begin := a.Launches[o.Generation].ctx, time.Now().Add(o.Idle), a.sequence.rest()
	go Guard(func() {
		<-begin
		for !a.accepted(o.Generation) || time.Now().Before(patience) && !a.quiet(o.Generation, o.PIDs) {
			if a.awaited(o.Generation) {
				a.Post(machine.Awaited{Generation: o.Generation})
			}
			timer := time.NewTimer(observePause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
		a.Post(machine.Quieted{Generation: o.Generation, PIDs: o.PIDs})
	}, a.Notice("cannot see whether connections are idle"))()
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
func (a *Host) quiet(generation int, pids []int) bool {
	return inTwoLooks(func() bool { return a.idle(generation, pids) })
}

// idle looks at the connections. Of one at a path nobody can tell.
func (a *Host) idle(generation int, pids []int) bool {
	trees, err := a.livingTrees(pids)
	if err != nil {
		return false
	}
	addresses := a.Steering.Addresses(generation)
	if accepted, err := a.Steering.Accepted(generation, trees); err != nil || accepted > 0 {
		return false
	}
	traffic, err := sockdiag.Look(trees, addresses, quietFor)
	if err != nil || traffic.Busy > 0 || traffic.Unclear == 0 {
		return err == nil && traffic.Busy == 0
	}
	if a.Farewells.idle(generation) {
		return true
	}
	traffic, err = sockdiag.Look(trees, addresses, unclearFor)
	return err == nil && traffic.Busy == 0
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
	return s, nil
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
		a.Steering.Ready(app.member())
	}
}

func (a *Host) retireSockets(generation int) {
	if a.Steering == nil {
		return
	}
	a.inOrder(fmt.Sprintf("cannot give up the sockets of generation %d", generation), func() (err error) {
		for slot := range a.Options.Policy.Instances {
			err = errors.Join(err, a.Steering.Retire(steering.InstanceKey{Generation: generation, Instance: slot}))
		}
		return err
	})
}
