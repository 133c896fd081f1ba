package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
)

// HostState is what belongs to the machine's state in the system. Descriptors in it are
// numbers of the old process.
type HostState struct {
	Uncapturable   bool                    `json:",omitzero"`
	NotOurChildren bool                    `json:"Strange,omitzero"` // apps may have parents that are no grace process
	Listeners      []socket.ListenerState  `json:",omitzero"`
	Metrics        *socket.ListenerState   `json:",omitzero"`
	Steering       *steering.SteeringState `json:",omitzero"`
	Launches       map[int]LaunchSpecState `json:",omitzero"`  // by generation
	Batches        map[int]int             `json:",omitempty"` // of which generation each is
	Programs       map[int]int             `json:",omitzero"`  // descriptors of executables, by generation, of ended ones too
	Apps           []InstanceProcessState  `json:",omitzero"`
	Starts         []StartState            `json:",omitempty"` // of which no process is known yet
	Runtime        string                  `json:",omitzero"`
	RuntimeLock    int                     `json:",omitzero"` // 0 if it has none
	Control        *ControlState           `json:",omitzero"`
	Hangup         bool                    `json:",omitzero"`  // HUP is heeded
	Signals        []int                   `json:",omitzero"`  // that came too late for the old grace process
	HTTP           []netip.AddrPort        `json:",omitempty"` // where it was seen to be spoken
	notes          []machine.Noticed
}

type ControlState struct {
	Path           string
	Listener, Lock int
}

type LaunchSpecState struct {
	Path, Real string              `json:",omitzero"`
	File       machine.File        `json:",omitzero"`
	Args       []string            `json:",omitzero"`
	Dir        string              `json:",omitzero"`
	Env        []string            `json:",omitzero"`
	FromFile   int                 `json:",omitzero"`
	Identity   *childproc.Identity `json:",omitzero"`
	Umask      int                 `json:",omitzero"`
}

func (l *LaunchSpec) State() LaunchSpecState {
	return LaunchSpecState{l.Path, l.Executable, l.File, l.Command, l.Dir, l.Env, l.fromFile, l.Identity, l.umask}
}

func (s LaunchSpecState) Launch() *LaunchSpec {
	ran := machine.LaunchSpec{Path: s.Path, Executable: s.Real, File: s.File, Command: s.Args, Dir: s.Dir}
	return &LaunchSpec{LaunchSpec: ran, Env: s.Env, fromFile: s.FromFile, Identity: s.Identity, umask: s.Umask}
}

// StartState is an instance that is being started.
type StartState struct {
	machine.Start
	Captured bool
}

// InstanceProcessState is one instance with its processes.
type InstanceProcessState struct {
	machine.Start
	NotOurChild  bool                     `json:"Strange,omitzero"` // it was started by another process than the old grace process
	Main         childproc.ProcessState   `json:",omitzero"`
	Launchers    []childproc.ProcessState `json:",omitzero"`
	Notify       childproc.NotifyState    `json:",omitzero"`
	Calls        int                      `json:",omitzero"` // -1 if it is not captured
	Captured     bool                     `json:",omitzero"` // it was, by a grace process that may have been killed
	LastCall     uint64                   `json:",omitzero"` // that this grace process has received
	Fresh        map[uint64]int           `json:",omitzero"` // sockets of grace's own in place of the app's, by inode
	Predecessors socket.SocketPlanState   `json:",omitzero"`
	Mains        []int                    `json:",omitzero"`
	Told, Said   bool                     `json:",omitzero"`
}

// state describes an app that is suspended.
func (a *InstanceProcess) state() (InstanceProcessState, error) {
	s := InstanceProcessState{
		Start: a.moved(), NotOurChild: a.reader.notOurChild, Captured: a.uncaptured,
		Main: a.main().State(), Calls: -1, Predecessors: a.plan.State(),
		Mains: a.reader.mains, Told: a.reader.told, Said: a.reader.said,
	}
	for _, p := range a.processes[:len(a.processes)-1] {
		s.Launchers = append(s.Launchers, p.State())
	}
	if a.calls != nil {
		s.Calls, s.Fresh = a.calls.FD(), a.captureHandler.fresh
	}
	var err error
	s.Notify, err = a.notify.State()
	return s, err
}

// Files are the descriptors in the state, each once.
func (s HostState) Files() []int {
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

// Describe adds what the host has of the apps, which are suspended.
func (a *Host) Describe(s *HostState) error {
	s.Uncapturable, s.Programs, s.Launches = a.uncapturable.Load(), a.allPrograms(), map[int]LaunchSpecState{}
	s.HTTP = a.Farewells.spoken()
	s.Batches = map[int]int{}
	for generation, p := range a.Launches {
		if p.of != 0 {
			s.Batches[generation] = p.of
			continue
		}
		s.Launches[generation] = p.Launch.State()
	}
	for _, app := range a.Running {
		state, err := app.state()
		if err != nil {
			return err
		}
		s.Apps = append(s.Apps, state)
	}
	return nil
}

// TakeOver makes the apps of a state, which another process, before, has described. Nothing of them is begun before CarryOn.
func (a *Host) TakeOver(s HostState, before int, notOurs bool, files socket.Descriptors) error {
	a.uncapturable.Store(s.Uncapturable)
	a.Farewells.heard = s.HTTP
	for generation, state := range s.Launches {
		a.Launches[generation] = NewPreparation(state.Launch())
	}
	for batch, of := range s.Batches {
		a.Branch(machine.Branch{Generation: batch, Of: of})
	}
	if err := a.takeOverPrograms(s.Programs, files); err != nil {
		return err
	}
	for _, app := range s.Apps {
		if err := a.takeOverApp(app, before, notOurs, files); err != nil {
			return err
		}
	}
	return nil
}

func (a *Host) takeOverApp(s InstanceProcessState, before int, notOurs bool, files socket.Descriptors) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	app := &InstanceProcess{start: s.Start, generation: s.Generation, ctx: ctx, cancel: cancel}
	app.serving, app.leave = context.WithCancel(ctx)
	if before, ok := a.Launches[s.Predecessor]; ok {
		app.predecessor = before.ctx
	}
	a.Running[s.Instance] = app
	for _, process := range append(s.Launchers, s.Main) {
		p, err := a.Reaper.TakeOver(process, files)
		if err != nil {
			return err
		}
		app.processes = append(app.processes, p)
	}
	if app.notify, err = childproc.TakeOverNotify(s.Notify, files); err != nil {
		return err
	}
	app.reader = newNotifyReader(a, s.Instance, app.notify, s.Main.PID)
	app.reader.mains, app.reader.told, app.reader.before, app.reader.notOurChild = s.Mains, s.Told, before, s.NotOurChild || notOurs
	if s.Said {
		app.reader.said = true
		close(app.reader.ready)
	}
	if app.plan, err = socket.TakeOverSocketPlan(s.Predecessors, files); err != nil {
		return err
	}
	return a.takeOverCalls(app, s, files)
}

func (a *Host) takeOverCalls(app *InstanceProcess, s InstanceProcessState, files socket.Descriptors) error {
	if s.Calls < 0 {
		app.uncaptured = s.Captured
		return nil
	}
	fd, err := files.Take(s.Calls)
	if err != nil {
		return err
	}
	if app.calls, err = capture.NewListener(fd); err != nil {
		return err
	}
	if err := app.calls.LetGo(s.LastCall); err != nil {
		return fmt.Errorf("cannot let the calls of instance %d go on: %w", s.Instance, err)
	}
	app.captureHandler = newCaptureHandler(a, app)
	for inode, there := range s.Fresh {
		if app.captureHandler.fresh[inode], err = files.Take(there); err != nil {
			return err
		}
	}
	return nil
}

// CarryOn begins to follow the apps that were taken over. Of an end that the machine knows
// already it is told once more.
func (a *Host) CarryOn(s machine.Snapshot) {
	instances := s.AllInstances()
	for id, app := range a.Running {
		i := instances[id]
		waiting, dismiss := context.WithCancel(app.ctx)
		app.launch, app.waiting, app.dismiss = a.Launches[app.generation].Launch, waiting, dismiss
		app.attend()
		a.lookAfter(app)
		a.ReportError("cannot tell the app of its predecessor", app.tellOfPredecessor())
		for _, p := range app.processes {
			a.follows(app, p)
		}
		if i.Phase == machine.PhaseStarting {
			a.await(app, waiting, a.Launches[app.generation].Launch, i.Since)
		} else {
			dismiss()
		}
		if i.Phase <= machine.PhaseReady && app.generation != machine.Foreign {
			a.watchFitness(app)
		}
	}
}

// Take leaves the socket to the old grace process for the time being.
func (c *ControlState) Take(files socket.Descriptors) (err error) {
	if c.Listener, err = files.Take(c.Listener); err != nil {
		return err
	}
	c.Lock, err = files.Take(c.Lock)
	return err
}

func (a *InstanceProcess) suspend() error {
	if a.captureHandler == nil {
		return a.notify.Suspend()
	}
	return errors.Join(a.notify.Suspend(), a.calls.Suspend())
}

func (a *InstanceProcess) resume() error {
	if a.captureHandler == nil {
		return a.notify.Resume()
	}
	return errors.Join(a.notify.Resume(), a.calls.Resume())
}

// Suspend has the apps' messages and calls wait. What it gives returns when nobody listens to them any more.
func (a *Host) Suspend() (silence func()) {
	var waited []*InstanceProcess
	for _, app := range a.Running {
		app.suspended = true
		a.ReportError("cannot suspend capturing", app.suspend())
		waited = append(waited, app)
	}
	return func() {
		for _, app := range waited {
			app.attending.Wait()
		}
	}
}

// Suspended is false where one was started since.
func (a *Host) Suspended() bool {
	for _, app := range a.Running {
		if !app.suspended {
			return false
		}
	}
	return true
}

// Resume listens to the apps again.
func (a *Host) Resume() {
	for _, app := range a.Running {
		if app.suspended {
			app.suspended = false
			a.ReportError("cannot resume capturing", app.resume())
			app.attend()
		}
	}
}
