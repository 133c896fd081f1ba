package supervisor

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/supervisor/machine"
)

// apps is the host of real processes. Its maps belong to the loop; a goroutine
// that fills in one entry is done with it before it posts the event that says so.
type apps struct {
	options   HostOptions
	family    *childproc.Family
	held      []*handoff.Listener             // all that the app is to get
	listeners []*handoff.Listener             // those of them that all instances share
	steering  *handoff.Steering               // nil if nothing is captured
	unowned   func(sockets []uint64) []uint64 // those that no process of the app has open
	// uncapturable is set when the system has refused to capture.
	uncapturable atomic.Bool
	runtime      runtimeDir
	post         func(machine.Event)
	launches     map[int]*preparation
	running      map[int]*app
	programs     map[int]program // of generations that have ended, for a rollback
	looks        gate            // into /proc and at sockets, at once
	lookUps      gate            // of a command and its files
	reaping      sync.WaitGroup
}

func (a *apps) tell(t machine.Tell) {
	app := a.running[t.Instance]
	a.attempt(app.main().Signal(t.Signal))
	if t.Signal == a.options.Policy.StopSignal {
		a.bypass(app, t.Signal)
	}
}

func (a *apps) tellGroup(t machine.TellGroup) {
	a.attempt(a.running[t.Instance].main().SignalGroup(t.Signal))
}

func (a *apps) dismiss(instance int) { a.running[instance].dismiss() }

func (a *apps) follow(instance int, main *childproc.Process) {
	late, ok := a.running[instance]
	if !ok {
		late = &app{processes: []*childproc.Process{main}}
		a.reaping.Go(func() { a.attempt(late.kill()) })
		return
	}
	late.processes = append(late.processes, main)
	a.follows(late, main)
}

func (a *apps) kill(instance int) {
	app := a.running[instance]
	a.attempt(app.signalAll(syscall.SIGKILL))
	a.killRest(app)
}

func (a *apps) reap(r machine.Reap) {
	app := a.running[r.Instance]
	i := slices.IndexFunc(app.processes, func(p *childproc.Process) bool { return p.PID == r.PID })
	p := app.processes[i]
	app.processes = slices.Delete(app.processes, i, i+1)
	errands := slices.Clone(app.errands)
	a.reaping.Go(func() {
		for _, done := range errands {
			<-done
		}
		a.attempt(p.Reap())
	})
}

// close reaps what has ended: PID 1 gets the zombies that grace leaves, and in many containers it does not reap.
func (a *apps) close() error {
	a.reaping.Wait()
	_, err := a.family.ReapOrphans()
	return err
}

func (a *apps) release(instance int) {
	app, ok := a.running[instance]
	if !ok {
		return // it never came to a start: its backoff was cut short
	}
	app.cancel()
	if app.grant != nil {
		a.attempt(app.grant.Close())
	}
	if app.notify != nil {
		a.attempt(app.notify.Close())
	}
	if app.calls != nil {
		a.attempt(app.calls.Close())
	}
	a.attempt(app.disown())
	a.vacate(app)
	delete(a.running, instance)
}

// holder is the instance in a place that is to be filled again, while something of
// it is left, or the one that has filled it.
func (a *apps) holder(s machine.Start) *app {
	for _, app := range a.running {
		if app.start.Generation == s.Generation && app.start.Slot == s.Slot {
			return app
		}
	}
	return nil
}

// attempt tells of an error that stops nothing. The loop cannot post to itself.
func (a *apps) attempt(err error) {
	if err != nil {
		go a.post(machine.Noticed{Text: "something did not work", Why: err.Error()})
	}
}

func (a *apps) count(c machine.Count) {
	failed := func(why string) { a.post(machine.Counted{Generation: c.Generation, Why: why}) }
	go guard(func() {
		pids, err := a.treesOf(c.PIDs)
		n := 0
		if err == nil {
			n, err = a.inFlight(c.Generation, pids)
		}
		if err != nil {
			failed(err.Error())
			return
		}
		a.post(machine.Counted{Generation: c.Generation, InFlight: n})
	}, failed)()
}

// inFlight counts the connections of a generation's processes: those that came by sockets
// which all share, and those that came to the generation's own addresses and paths.
func (a *apps) inFlight(generation int, pids []int) (n int, err error) {
	if a.steering == nil || len(a.listeners) > 0 {
		n, err = handoff.Connections(pids, a.listeners)
	}
	if err != nil || a.steering == nil {
		return n, err
	}
	traffic, err := handoff.Look(pids, a.steering.Addresses(generation), quietFor)
	if err != nil {
		return 0, err
	}
	accepted, err := a.steering.Accepted(generation, pids)
	return n + traffic.Open + accepted, err
}
