package host

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
)

// Host is the host of real processes. Its maps belong to the loop; a goroutine
// that fills in one entry is done with it before it posts the event that says so.
type Host struct {
	Options   Options
	Reaper    *childproc.Reaper
	Held      []*socket.Listener              // all that the app is to get
	Listeners []*socket.Listener              // those of them that all instances share
	Stored    bool                            // the service manager keeps what outlives a stop
	Steering  *steering.Steering              // nil if nothing is captured
	Takeover  *Takeover                       // nil if grace takes nothing over
	Unowned   func(sockets []uint64) []uint64 // those that no process of the app has open
	// uncapturable is set when the system has refused to capture.
	uncapturable atomic.Bool
	startTook    atomic.Int64 // in ns, of the instance that became ready last
	Farewells    *Farewells
	Runtime      RuntimeDir
	Post         func(machine.Event)
	Changed      func() // is told when the steering has changed, by any goroutine; nil: nobody wants to know
	// Saved returns when the state as it is now was written down; nil: it is not. It is not for the loop.
	Saved func()
	// Noted returns when what Changed was told until now was written down; nil: it is not. It is not for the loop.
	Noted     func()
	First     *LaunchSpec // of the first generation, which was looked up before
	Launches  map[int]*Preparation
	Running   map[int]*InstanceProcess
	Programs  map[int]Program // of generations that have ended, for a rollback
	Ending    chan struct{}   // EndReaping closes it
	Detached  bool            // the apps have all that grace had for them
	Looks     Semaphore       // into /proc and at sockets, at once
	LookUps   Semaphore       // of a command and its files
	Locked    LockedFiles     // by the generation before
	reaping   sync.WaitGroup
	sequence  sequence
	examining context.CancelFunc // ends the runs of --canary-check
	watching  sync.Once
	fragile   sync.Once // an app that its stop signal ends
	// runtimeLoss gives what is closed when something may have gone from the runtime directory.
	runtimeLoss chan (<-chan struct{})
}

func (a *Host) Tell(t machine.Tell) {
	app := a.Running[t.Instance]
	app.leave()
	a.ReportError(fmt.Sprintf("cannot signal instance %d", t.Instance), app.main().Signal(t.Signal))
	if app.generation == machine.Foreign || t.Signal == a.Options.Policy.StopSignal {
		a.bypass(app, t.Signal)
	}
}

func (a *Host) TellGroup(t machine.TellGroup) {
	app := a.Running[t.Instance]
	app.leave()
	a.ReportError(fmt.Sprintf("cannot signal the process group of instance %d", t.Instance), app.main().SignalGroup(t.Signal))
}

func (a *Host) Dismiss(d machine.Dismiss) { a.Running[d.Instance].dismiss() }

func (a *Host) follow(instance int, main *childproc.Process) {
	late, ok := a.Running[instance]
	if !ok {
		late = &InstanceProcess{processes: []*childproc.Process{main}}
		a.reaping.Go(func() { a.ReportError("cannot kill a main process whose instance has already ended", late.kill()) })
		return
	}
	late.processes = append(late.processes, main)
	a.follows(late, main)
}

func (a *Host) Kill(k machine.Kill) {
	app := a.Running[k.Instance]
	a.ReportError(fmt.Sprintf("cannot kill instance %d", k.Instance), app.signalAll(syscall.SIGKILL))
	a.killRest(app)
}

func (a *Host) Reap(r machine.Reap) {
	app := a.Running[r.Instance]
	i := slices.IndexFunc(app.processes, func(p *childproc.Process) bool { return p.PID == r.PID })
	p := app.processes[i]
	app.processes = slices.Delete(app.processes, i, i+1)
	tasks := slices.Clone(app.tasks)
	a.reaping.Go(func() {
		for _, done := range tasks {
			<-done
		}
		a.awaitReaping()
		a.ReportError(fmt.Sprintf("cannot reap process %d", p.PID), p.Reap())
	})
}

// reapAfter is how long an ended process stays a zombie. Reaping it sooner spins in the kernel, under a lock that forks and looks
// into /proc want too, until its last thread has removed its entries there (release_task in kernel/exit.c, d_invalidate and
// shrink_dcache_parent in fs/dcache.c).
const reapAfter = 50 * time.Millisecond

func (a *Host) awaitReaping() {
	timer := time.NewTimer(reapAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.Ending:
	}
}

// EndReaping reaps at once what has ended. It is to be called once, when the loop has ended.
func (a *Host) EndReaping() {
	close(a.Ending)
	a.reaping.Wait()
}

// Detach has what belongs to the app stay as it is when grace ends.
func (a *Host) Detach(machine.Detach) {
	a.Detached = true
	for _, l := range a.Held {
		a.ReportError("cannot leave a socket to the app", l.Leave())
	}
}

// Rest gives a channel that is closed when all has been done that the loop has asked for. It is the loop's, or of who has it
// stand still.
func (a *Host) Rest() <-chan struct{} { return a.sequence.rest() }

// Close reaps what has ended: PID 1 gets the zombies that grace leaves, and in many containers it does not reap.
func (a *Host) Close() error {
	a.EndReaping()
	<-a.sequence.rest()
	_, err := a.Reaper.ReapOrphans()
	return err
}

func (a *Host) Release(r machine.Release) {
	app, ok := a.Running[r.Instance]
	if !ok {
		return // it never came to a start: its backoff was cut short
	}
	app.cancel()
	delete(a.Running, r.Instance)
	a.inOrder("cannot close what belonged to an instance", app.close)
	a.vacate(app)
}

// holder is the instance in a place that is to be filled again, while something of
// it is left, or the one that has filled it.
func (a *Host) holder(s machine.Start) *InstanceProcess {
	for _, app := range a.Running {
		if app.generation == s.Generation && app.start.Slot == s.Slot {
			return app
		}
	}
	return nil
}

// Attempt reports an error that stops nothing, with what grace cannot do. The loop cannot post to itself.
func (a *Host) ReportError(cannot string, err error) {
	if err != nil {
		go a.Post(machine.Noticed{Text: cannot, Why: err.Error()})
	}
}

func (a *Host) Count(c machine.Count) {
	failed := func(why string) { a.Post(machine.Counted{Generation: c.Generation, Why: why}) }
	go Guard(func() {
		pids, err := a.treesOf(c.PIDs)
		n := 0
		if err == nil {
			n, err = a.InFlight(c.Generation, pids)
		}
		if err != nil {
			failed(err.Error())
			return
		}
		a.Post(machine.Counted{Generation: c.Generation, InFlight: n})
	}, failed)()
}

// InFlight counts the connections of a generation's processes: those that came by sockets
// which all share, and those that came to the generation's own addresses and paths.
func (a *Host) InFlight(generation int, pids []int) (n int, err error) {
	if a.Steering == nil || len(a.Listeners) > 0 {
		n, err = sockdiag.Connections(pids, a.Listeners)
	}
	if err != nil || a.Steering == nil {
		return n, err
	}
	traffic, err := sockdiag.Look(pids, a.Steering.Addresses(generation), quietFor)
	if err != nil {
		return 0, err
	}
	accepted, err := a.Steering.Accepted(generation, pids)
	return n + traffic.Open + accepted, err
}
