package host

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
)

// InstanceProcess is what belongs to one instance.
type InstanceProcess struct {
	start      machine.Start
	generation int // that it belongs to now
	key        atomic.Pointer[steering.InstanceKey]
	ctx        context.Context // ends with the instance
	cancel     context.CancelFunc
	launch     *LaunchSpec
	waiting    context.Context    // ends with the wait for its readiness
	dismiss    context.CancelFunc // ends that wait
	serving    context.Context    // ends when it is to get no new connections any more, for good
	leave      context.CancelFunc // ends that
	// predecessor ends when the generation that this one replaces has; nil if
	// there is none.
	predecessor    context.Context
	before         []int                // the main processes of that generation, as far as they served at the start
	began          time.Time            // zero: it was started by another grace process
	processes      []*childproc.Process // not reaped: the main one last, before it those that were it before
	notify         *childproc.NotifySocket
	calls          *capture.Listener // of a captured app
	uncaptured     bool              // its capture has ended with a grace process that was killed
	sockets        []*socket.Listener
	owned          []*socket.Listener // those of them that are this instance's own
	captureHandler *captureHandler
	reader         *notifyReader
	attending      sync.WaitGroup // those who listen to the app
	listened       chan struct{}  // one at most: the captured app has called listen since it was looked at
	suspended      bool
	saved          <-chan struct{}   // closed when who adopts the app would know as much of it as its start needs; nil: adopted itself
	tasks          []<-chan struct{} // closed when nobody looks for what its processes have left behind
	plan           *socket.SocketPlan
}

// main is the process that its instance is watched by. Where that has been reaped it is one
// that came before it and lives on.
func (a *InstanceProcess) main() *childproc.Process { return a.processes[len(a.processes)-1] }

// mainPID may be asked for by any goroutine.
func (a *InstanceProcess) mainPID() int { return int(a.reader.main.Load()) }

// noteListen has an app looked at soon that may be ready now.
func (a *InstanceProcess) noteListen() {
	select {
	case a.listened <- struct{}{}:
	default: // the look that is to come is soon enough, or nobody looks
	}
}

// close may have to wait until what the app has said last was taken, by the loop too.
func (a *InstanceProcess) close() error {
	errs := []error{a.disown()}
	if a.plan != nil {
		errs = append(errs, a.plan.Close())
	}
	if a.notify != nil {
		errs = append(errs, a.notify.Close())
	}
	if a.calls != nil {
		errs = append(errs, a.calls.Close())
	}
	return errors.Join(errs...)
}

func (a *InstanceProcess) signalAll(signal syscall.Signal) error {
	var errs []error
	for _, p := range a.processes {
		errs = append(errs, p.SignalGroup(signal))
	}
	return errors.Join(errs...)
}

// task does what takes time with the processes, none of which is reaped before it is over.
func (a *InstanceProcess) task(do func()) {
	done := make(chan struct{})
	a.tasks = append(a.tasks, done)
	go func() {
		defer close(done)
		do()
	}()
}

// member is what the steering knows it by. It changes in the order in which the steering does.
func (a *InstanceProcess) member() steering.InstanceKey {
	if moved := a.key.Load(); moved != nil {
		return *moved
	}
	return steering.InstanceKey{Generation: a.start.Generation, Instance: a.start.Slot}
}

// settle has the steering know the instance by the generation that it belongs to.
func (a *InstanceProcess) settle() {
	a.key.Store(&steering.InstanceKey{Generation: a.generation, Instance: a.start.Slot})
}

// moved is its start as one of the generation that it belongs to now.
func (a *InstanceProcess) moved() machine.Start {
	s := a.start
	s.Generation = a.generation
	return s
}

func (a *Host) Start(s machine.Start) {
	ctx, cancel := context.WithCancel(context.Background())
	waiting, dismiss := context.WithCancel(ctx)
	app := &InstanceProcess{start: s, generation: s.Generation, ctx: ctx, launch: a.Launches[s.Generation].Launch, cancel: cancel, waiting: waiting, dismiss: dismiss, listened: make(chan struct{}, 1)}
	app.serving, app.leave = context.WithCancel(ctx)
	if a.Launches[s.Generation].leaves {
		app.leave() // it is only to answer who waits
	}
	if before, ok := a.Launches[s.Predecessor]; ok {
		app.predecessor = before.ctx
	}
	if last := a.holder(s); last != nil {
		a.vacate(last) // now, as what is left of it may stay for longer
	}
	app.before, app.began = a.replaces(s), time.Now()
	a.Running[s.Instance] = app
	launch, turn := a.Launches[s.Generation].Launch, a.sequence.rest()
	go func() {
		app.saved = a.saving() // who adopts the app has to know that the instance was being started
		<-turn                 // it may take up what another one has left
		if err := a.bring(app, launch); err != nil {
			a.Post(machine.StartFailed{Instance: s.Instance, Exit: failedExit(launch.Path, err)})
			return
		}
		p := app.main() // once started is posted, the processes are the loop's
		app.reader = newNotifyReader(a, s.Instance, app.notify, p.PID)
		a.Post(machine.Started{Instance: s.Instance, PID: p.PID})
		app.saved = a.saving() // and which process it is: others it would end
		a.follows(app, p)
		app.hear()
		a.lookAfter(app)
		a.watchFitness(app)
		a.await(app, waiting, launch, time.Now())
	}()
}

// await looks for the instance to be ready.
func (a *Host) await(app *InstanceProcess, waiting context.Context, l *LaunchSpec, since time.Time) {
	v := newReadinessCheck(a, app, waiting, l, since)
	go Guard(v.awaitReady, v.giveUp)()
}

func (a *Host) follows(app *InstanceProcess, p *childproc.Process) {
	go Guard(func() { a.watch(app, p) }, func(why string) { a.loseSight(app, p, why) })()
}

// attend listens to what the app says and calls.
func (a *InstanceProcess) attend() {
	a.hear()
	if a.captureHandler != nil {
		a.answer()
	}
}

func (a *InstanceProcess) hear() {
	a.attending.Go(Guard(a.reader.listen, a.reader.apps.Notice("cannot read NOTIFY_SOCKET any more")))
}

func (a *InstanceProcess) answer() {
	a.attending.Go(Guard(a.captureHandler.answerAll, a.captureHandler.giveUp))
}

// bring starts the process with all that the contract promises it.
func (a *Host) bring(app *InstanceProcess, l *LaunchSpec) (err error) {
	if broken := guarded(func() { err = a.bringUnguarded(app, l) }); broken != nil {
		err = broken
	}
	if err != nil {
		return errors.Join(err, app.kill())
	}
	return nil
}

func (a *Host) bringUnguarded(app *InstanceProcess, l *LaunchSpec) error {
	spec := l.spec()
	spec.Path, spec.Program = a.locate(app.start.Of, l)
	spec.Args, spec.Env = l.filled(app.start)
	if err := a.equip(app, &spec); err != nil {
		return err
	}
	<-app.saved
	err := a.launch(app, spec)
	a.ReportError("cannot close descriptors of the app", errors.Join(app.plan.Started(), app.disown()))
	if err == nil {
		a.ReportError("cannot tell the app of its predecessor", app.tellOfPredecessor())
	}
	return err
}

func (a *Host) equip(app *InstanceProcess, spec *childproc.Spec) error {
	var why, err error
	if app.notify, why, err = a.Runtime.openNotify(spec.Identity); err != nil {
		return err
	}
	if why != nil {
		a.Post(machine.Noticed{Text: "the app has an abstract NOTIFY_SOCKET", Why: why.Error()})
	}
	if err = a.own(app); err != nil {
		return err
	}
	app.plan, err = a.Options.Dialects.Plan(socket.PlanRequest{
		Listeners:  app.sockets,
		Command:    spec.Args,
		Generation: app.start.Of,
		Parent:     os.Getpid(),
	})
	if err != nil {
		return err
	}
	spec.Args, spec.Stdin, spec.Files, spec.PIDVars = app.plan.Command, app.plan.Stdin, app.plan.Files, app.plan.PIDVars
	spec.Capture = a.captures()
	spec.CaptureUnlink = len(a.Options.CaptureUnix) > 0
	spec.NoNewPrivs = a.Options.NoNewPrivs.wanted(spec.Capture)
	spec.Env = append(append(spec.Env, app.plan.Env...), a.variables(app)...)
	return nil
}

func (a *Host) captures() bool {
	return a.Steering != nil && a.Options.captures() && !a.uncapturable.Load()
}

// own collects the instance's sockets: those that all share, and its own of the
// steered addresses.
func (a *Host) own(app *InstanceProcess) error {
	for _, l := range a.Held {
		if l.Address().Steer {
			var own *socket.Listener
			err := a.withEviction(func() (err error) {
				own, err = a.Steering.Own(app.member(), l)
				return err
			})
			if err != nil {
				return errors.Join(err, app.disown())
			}
			app.owned = append(app.owned, own)
			l = own
		}
		app.sockets = append(app.sockets, l)
	}
	if len(app.owned) > 0 {
		a.Post(machine.Opened{Instance: app.start.Instance})
	}
	return nil
}

// disown leaves its own sockets to the instance, and to the steering.
func (a *InstanceProcess) disown() error {
	var errs []error
	for _, l := range a.owned {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (a *Host) variables(app *InstanceProcess) []string {
	env := append([]string{"NOTIFY_SOCKET=" + app.notify.Path()}, instanceVariables(app.start)...)
	env = append(env, "GRACE_KILL_AFTER="+a.Options.Policy.KillAfter().String())
	if d := a.Options.Policy.Watchdog; d > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(d.Microseconds(), 10))
	}
	return env
}

func instanceVariables(s machine.Start) []string {
	return []string{"GRACE_GENERATION=" + strconv.Itoa(s.Of), "GRACE_INSTANCE=" + strconv.Itoa(s.Slot)}
}

// tellOfPredecessor lets the app know, if its dialect has a way, when it is alone.
func (a *InstanceProcess) tellOfPredecessor() error {
	gone := a.plan.Predecessor
	if gone == nil {
		return nil
	}
	if a.predecessor == nil {
		return gone.Close()
	}
	context.AfterFunc(a.predecessor, func() { _ = gone.Close() }) // the grant may have closed it
	return nil
}

func failedExit(path string, err error) machine.Exit {
	failed := (*childproc.StartError)(nil)
	if errors.As(err, &failed) {
		return exitOf(childproc.Exit{Err: failed})
	}
	failed = &childproc.StartError{Step: err.Error(), Path: path}
	if errors.As(err, &failed.Errno) {
		failed.Step = strings.TrimSuffix(failed.Step, ": "+failed.Errno.Error())
	}
	return exitOf(childproc.Exit{Err: failed})
}

func exitOf(e childproc.Exit) machine.Exit {
	if e.Err != nil {
		return machine.Exit{Code: e.Status(), NotRun: e.Err.Error(), Shortage: e.Shortage()}
	}
	return machine.Exit{Code: e.Code, Signal: e.Signal, Unknown: e.Unknown}
}

// watch turns the end of one process into events.
func (a *Host) watch(app *InstanceProcess, p *childproc.Process) {
	instance, pid := app.start.Instance, p.PID
	exit, err := p.Wait()
	if err != nil {
		if app.ctx.Err() != nil {
			return // it is not followed any more
		}
		a.loseSight(app, p, err.Error())
		return
	}
	if err := app.reader.catchUp(app.ctx); err != nil {
		a.Post(machine.Noticed{Text: "cannot read the app's last messages from NOTIFY_SOCKET", Why: err.Error()})
	}
	if app.waiting.Err() == nil {
		if why := a.whyEnded(app, pid); why != "" {
			a.Post(machine.Obstructed{Instance: instance, Why: why})
		}
	}
	a.Post(machine.Exited{Instance: instance, PID: pid, Exit: exitOf(exit)})
	a.awaitRest(app, p)
	a.Post(machine.Emptied{Instance: instance, PID: pid})
}

// whyEnded is what may have kept an instance from being ready that has ended, as far as it can be seen.
func (a *Host) whyEnded(app *InstanceProcess, pid int) string {
	if why := joined(app.launch.occupied(app.start, pid), a.rivals(app)); why != "" {
		return why
	}
	return a.lockedOutBy(app)
}

// awaitRest returns when nothing is left of a process, or nothing can be known of that for another reason than a shortage.
func (a *Host) awaitRest(app *InstanceProcess, p *childproc.Process) {
	err := a.insist(app, "cannot watch what the app left behind yet, trying again", func() error { return p.WaitRest(app.ctx.Done()) })
	if err != nil {
		a.Post(machine.Noticed{Text: "cannot watch what the app left behind", Why: err.Error()})
	}
}

func joined(reason, more string) string {
	if reason == "" || more == "" {
		return reason + more
	}
	return reason + "; " + more
}
