package supervisor

import (
	"context"
	"errors"
	"slices"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/supervisor/machine"
)

// hostState is what belongs to the machine's state in the system. Descriptors in it are
// numbers of the old process.
type hostState struct {
	Uncapturable bool
	Strange      bool // apps may have parents that are no grace
	Listeners    []handoff.ListenerState
	Metrics      *handoff.ListenerState
	Steering     *handoff.SteeringState
	Launches     map[int]launchState // by generation
	Programs     map[int]int         // descriptors of executables, by generation, of ended ones too
	Apps         []appState
	Runtime      string
	RuntimeLock  int // 0 if it has none
	Control      *controlState
	Hangup       bool  // HUP is heeded
	Signals      []int // that came too late for the old grace
}

type controlState struct {
	Path           string
	Listener, Lock int
}

type launchState struct {
	Path, Real string
	File       machine.File
	Args       []string
	Dir        string
	Env        []string
	FromFile   int
	Identity   *childproc.Identity
	Umask      int
}

func (l *launch) state() launchState {
	return launchState{l.path, l.real, l.file, l.args, l.dir, l.env, l.fromFile, l.identity, l.umask}
}

func (s launchState) launch() *launch {
	return &launch{path: s.Path, real: s.Real, file: s.File, args: s.Args, dir: s.Dir, env: s.Env, fromFile: s.FromFile, identity: s.Identity, umask: s.Umask}
}

// appState is one instance with its processes.
type appState struct {
	Generation, Instance, Slot int
	MustNotify                 bool
	Predecessor                int
	Strange                    bool // it was started by another process than the old grace
	Main                       childproc.ProcessState
	Launchers                  []childproc.ProcessState
	Notify                     childproc.NotifyState
	Calls                      int            // -1 if it is not captured
	Fresh                      map[uint64]int // sockets of grace's own in place of the app's, by inode
	Predecessors               handoff.GrantState
	Mains                      []int
	Told, Said                 bool
}

// state describes an app that is suspended.
func (a *app) state() (appState, error) {
	s := appState{
		Generation: a.start.Generation, Instance: a.start.Instance, Slot: a.start.Slot,
		MustNotify: a.start.MustNotify, Predecessor: a.start.Predecessor, Strange: a.ear.strange,
		Main: a.main().State(), Calls: -1, Predecessors: a.grant.State(),
		Mains: a.ear.mains, Told: a.ear.told, Said: a.ear.said,
	}
	for _, p := range a.processes[:len(a.processes)-1] {
		s.Launchers = append(s.Launchers, p.State())
	}
	if a.calls != nil {
		s.Calls, s.Fresh = a.calls.FD(), a.captor.fresh
	}
	var err error
	s.Notify, err = a.notify.State()
	return s, err
}

// files are the descriptors in the state, each once.
func (s hostState) files() []int {
	files := []int{}
	add := func(fds ...int) { files = append(files, fds...) }
	for _, l := range s.Listeners {
		add(l.FD)
	}
	if s.Metrics != nil {
		add(s.Metrics.FD)
	}
	if s.Steering != nil {
		add(s.Steering.FDs()...)
	}
	if s.Control != nil {
		add(s.Control.Listener, s.Control.Lock)
	}
	if s.RuntimeLock > 0 {
		add(s.RuntimeLock)
	}
	for _, fd := range s.Programs {
		add(fd)
	}
	for _, a := range s.Apps {
		add(a.Main.PIDFD, a.Notify.FD, a.Calls, a.Predecessors.Predecessor)
		add(a.Notify.Former...)
		for _, p := range a.Launchers {
			add(p.PIDFD)
		}
		for _, fd := range a.Fresh {
			add(fd)
		}
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(fd int) bool { return fd < 0 })
}

// takeOver makes the app of a state. Nothing of it is begun before carryOn.
func (a *apps) takeOver(s appState, before int, strange bool, files handoff.Descriptors) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	app := &app{
		start: machine.Start{Generation: s.Generation, Instance: s.Instance, Slot: s.Slot, MustNotify: s.MustNotify, Predecessor: s.Predecessor},
		ctx:   ctx, cancel: cancel,
	}
	if before, ok := a.launches[s.Predecessor]; ok {
		app.predecessor = before.ctx
	}
	a.running[s.Instance] = app
	for _, process := range append(s.Launchers, s.Main) {
		p, err := a.family.TakeOver(process, files)
		if err != nil {
			return err
		}
		app.processes = append(app.processes, p)
	}
	if app.notify, err = childproc.TakeOverNotify(s.Notify, files); err != nil {
		return err
	}
	app.ear = newEar(a, s.Instance, app.notify, s.Main.PID)
	app.ear.mains, app.ear.told, app.ear.before, app.ear.strange = s.Mains, s.Told, before, s.Strange || strange
	if s.Said {
		app.ear.said = true
		close(app.ear.ready)
	}
	if app.grant, err = handoff.TakeOverGrant(s.Predecessors, files); err != nil {
		return err
	}
	return a.takeOverCalls(app, s, files)
}

func (a *apps) takeOverCalls(app *app, s appState, files handoff.Descriptors) error {
	if s.Calls < 0 {
		return nil
	}
	fd, err := files.Take(s.Calls)
	if err != nil {
		return err
	}
	if app.calls, err = capture.NewListener(fd); err != nil {
		return err
	}
	app.captor = newCaptor(a, app)
	for inode, there := range s.Fresh {
		if app.captor.fresh[inode], err = files.Take(there); err != nil {
			return err
		}
	}
	return nil
}

// carryOn begins to follow the apps that were taken over. Of an end that the machine knows
// already it is told once more.
func (a *apps) carryOn(s machine.Snapshot) {
	instances := s.Instances()
	for id, app := range a.running {
		i := instances[id]
		waiting, dismiss := context.WithCancel(app.ctx)
		app.launch, app.waiting, app.dismiss = a.launches[app.start.Generation].launch, waiting, dismiss
		app.attend()
		a.lookAfter(app)
		a.attempt(app.tellOfPredecessor())
		for _, p := range app.processes {
			a.follows(app, p)
		}
		if i.Phase == machine.PhaseStarting.String() {
			a.await(app, waiting, a.launches[app.start.Generation].launch, i.Since)
		}
	}
}

// take leaves the socket to the old grace for the time being.
func (c *controlState) take(files handoff.Descriptors) (err error) {
	if c.Listener, err = files.Take(c.Listener); err != nil {
		return err
	}
	c.Lock, err = files.Take(c.Lock)
	return err
}

func (a *app) suspend() error {
	if a.captor == nil {
		return a.notify.Suspend()
	}
	return errors.Join(a.notify.Suspend(), a.calls.Suspend())
}

func (a *app) resume() error {
	if a.captor == nil {
		return a.notify.Resume()
	}
	return errors.Join(a.notify.Resume(), a.calls.Resume())
}
