package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/supervisor/machine"
)

func (a *apps) steer(generation int) {
	kept, err := a.steering.Cutover(generation)
	a.attempt(err)
	for replaced := range a.launches {
		if replaced != generation {
			_, err := a.steering.Queued(replaced) // counts the handshakes that are open now
			a.attempt(err)
		}
	}
	for _, address := range kept {
		go a.post(machine.Noticed{Text: "an address stays with the old generation", Why: fmt.Sprintf("nothing of generation %d listens on %s", generation, address)})
	}
}

// turnAway counts the handshakes that are open now, as steer does.
func (a *apps) turnAway() {
	a.attempt(a.steering.TurnAway())
	for generation := range a.launches {
		_, err := a.steering.Queued(generation)
		a.attempt(err)
	}
}

func (a *apps) letGo(generation int) { a.attempt(a.steering.LetGo(generation)) }

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

// observe posts quieted once nothing goes on in the generation any more, and until then awaited
// as often as connections are seen that nobody is there to accept.
func (a *apps) observe(o machine.Observe) {
	ctx, patience := a.launches[o.Generation].ctx, time.Now().Add(o.Idle)
	go guard(func() {
		for !a.accepted(o.Generation) || time.Now().Before(patience) && !a.quiet(o.Generation, o.PIDs) {
			if a.awaited(o.Generation) {
				a.post(machine.Awaited{Generation: o.Generation})
			}
			timer := time.NewTimer(observePause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
		a.post(machine.Quieted{Generation: o.Generation, PIDs: o.PIDs})
	}, a.notice("cannot see whether connections are idle"))()
}

// accepted reports whether nothing waits in the generation's queues. It comes before
// idle: what is accepted meanwhile is seen among the connections.
func (a *apps) accepted(generation int) bool {
	queued, err := a.steering.Queued(generation)
	return err == nil && queued == 0
}

func (a *apps) awaited(generation int) bool {
	awaited, err := a.steering.Awaited(generation)
	return err == nil && awaited
}

// quiet takes two looks. One can miss a process that is just being born, with the
// connection that its parent has accepted for it.
func (a *apps) quiet(generation int, pids []int) bool {
	return inTwoLooks(func() bool { return a.idle(generation, pids) })
}

// idle looks at the connections. Of one at a path nobody can tell.
func (a *apps) idle(generation int, pids []int) bool {
	trees, err := a.livingTrees(pids)
	if err != nil {
		return false
	}
	addresses := a.steering.Addresses(generation)
	if accepted, err := a.steering.Accepted(generation, trees); err != nil || accepted > 0 {
		return false
	}
	traffic, err := handoff.Look(trees, addresses, quietFor)
	if err != nil || traffic.Busy > 0 || traffic.Unclear == 0 {
		return err == nil && traffic.Busy == 0
	}
	traffic, err = handoff.Look(trees, addresses, unclearFor)
	return err == nil && traffic.Busy == 0
}

// treesOf lists what can be listed, and gives the first error of what cannot.
func (a *apps) treesOf(roots []int) (pids []int, failed error) {
	for _, root := range roots {
		tree, err := a.family.Tree(root)
		if failed == nil {
			failed = err
		}
		pids = append(pids, tree...)
	}
	return pids, failed
}

// livingTrees leaves out what has ended.
func (a *apps) livingTrees(roots []int) (pids []int, err error) {
	for _, root := range roots {
		tree, err := a.family.Tree(root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		pids = append(pids, tree...)
	}
	return pids, nil
}

func steered(a handoff.Address) bool { return a.Steer }

func shared(a handoff.Address) bool { return !a.Steer }

// openSteering gives nil where nothing is steered.
func openSteering(o HostOptions, live func(handoff.Member, uint64) bool) (*handoff.Steering, error) {
	if !o.captures() && !slices.ContainsFunc(o.Listen, steered) {
		return nil, nil
	}
	s, err := handoff.NewSteering(live)
	if err != nil {
		return nil, err
	}
	for _, path := range o.CaptureUnix {
		s.Declare(within(o.Dir, path))
	}
	return s, nil
}

func closeSteering(s *handoff.Steering) error {
	if s == nil {
		return nil
	}
	return s.Close()
}

// watchSteering ends when the steering is closed.
func watchSteering(s *handoff.Steering, post func(machine.Event)) {
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
func (a *apps) vacate(app *app) {
	if a.steering == nil {
		return
	}
	a.attempt(a.steering.Vacate(app.member()))
}

// confirm says that the instance serves: what it has taken up is its own.
func (a *apps) confirm(app *app) {
	if a.steering != nil {
		a.steering.Ready(app.member())
	}
}

func (a *apps) retireSockets(generation int) {
	if a.steering == nil {
		return
	}
	for slot := range a.options.Policy.Instances {
		a.attempt(a.steering.Retire(handoff.Member{Generation: generation, Instance: slot}))
	}
}
