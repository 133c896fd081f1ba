package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
)

// apps is the host of real processes. Its maps belong to the loop; a goroutine
// that fills in one entry is done with it before it posts the event that says so.
type apps struct {
	options   Options
	family    *childproc.Family
	listeners []*handoff.Listener
	runtime   runtimeDir
	post      func(event)
	launches  map[int]*preparation
	running   map[int]*app
}

// preparation is a generation's launch, or the way to it.
type preparation struct {
	launch *launch
	ctx    context.Context // ends with the generation
	cancel context.CancelFunc
}

// app is what belongs to one instance.
type app struct {
	start   start
	ctx     context.Context // ends with the instance
	cancel  context.CancelFunc
	dismiss context.CancelFunc // ends the wait for its readiness
	// predecessor ends when the generation that this one replaces has; nil if
	// there is none.
	predecessor context.Context
	main        *childproc.Process
	launchers   map[int]*childproc.Process // by pid: what was main before
	notify      *childproc.NotifySocket
	ear         *ear
	grant       *handoff.Grant
}

func (a *apps) prepare(generation int) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &preparation{ctx: ctx, cancel: cancel}
	a.launches[generation] = p
	go func() {
		l, err := a.resolve(ctx, generation)
		if err != nil {
			a.post(prepareFailed{generation, err.Error(), statusOf(err)})
			return
		}
		p.launch = l
		a.post(prepared{generation, l.real})
	}()
}

func statusOf(err error) int {
	if e := (*launchError)(nil); errors.As(err, &e) {
		return e.status
	}
	return statusFailure
}

func (a *apps) resolve(ctx context.Context, generation int) (*launch, error) {
	l, err := resolve(a.options)
	if err != nil || a.options.Check == "" || generation == 1 {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.Policy.ReadyTimeout)
	defer cancel()
	return l, a.check(ctx, l)
}

const checkOutput = 4096

func (a *apps) check(ctx context.Context, l *launch) error {
	output, exit, err := a.family.Output(ctx, l.shell(a.options.Check), checkOutput)
	said := strings.TrimSpace(string(output))
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("--check did not end within %s: %s", a.options.Policy.ReadyTimeout, said)
	}
	if err != nil {
		return fmt.Errorf("cannot run --check: %w", err)
	}
	if exit.Status() != 0 {
		return fmt.Errorf("--check failed (%s): %s", exit, said)
	}
	return nil
}

func (a *apps) abandon(generation int) { a.launches[generation].cancel() }

func (a *apps) retire(generation int) {
	a.launches[generation].cancel()
	delete(a.launches, generation)
}

func (a *apps) start(s start) {
	ctx, cancel := context.WithCancel(context.Background())
	waiting, dismiss := context.WithCancel(ctx)
	app := &app{start: s, ctx: ctx, cancel: cancel, dismiss: dismiss, launchers: map[int]*childproc.Process{}}
	if before, ok := a.launches[s.predecessor]; ok {
		app.predecessor = before.ctx
	}
	a.running[s.instance] = app
	launch := a.launches[s.generation].launch
	go func() {
		if err := a.bring(app, launch); err != nil {
			a.post(startFailed{s.instance, failedExit(launch.path, err)})
			return
		}
		p := app.main // once started is posted, app.main is the loop's
		app.ear = newEar(a, s.instance, app.notify, p.PID)
		a.post(started{s.instance, p.PID})
		go a.watch(app, p)
		go app.ear.listen()
		go (&vigil{apps: a, app: app, ctx: waiting, launch: launch, instance: s.instance, pid: p.PID, begun: time.Now()}).awaitReady()
	}()
}

// bring starts the process with all that the contract promises it.
func (a *apps) bring(app *app, l *launch) error {
	spec := l.spec()
	if err := a.equip(app, &spec); err != nil {
		return err
	}
	var err error
	app.main, err = a.family.Start(spec)
	return errors.Join(err, app.grant.Started(), app.tellOfPredecessor())
}

// tellOfPredecessor lets the app know, if its dialect has a way, when it is alone.
func (a *app) tellOfPredecessor() error {
	gone := a.grant.Predecessor
	if gone == nil {
		return nil
	}
	if a.predecessor == nil {
		return gone.Close()
	}
	context.AfterFunc(a.predecessor, func() { _ = gone.Close() }) // the grant may have closed it
	return nil
}

func (a *apps) equip(app *app, spec *childproc.Spec) error {
	uid, gid := -1, -1
	if spec.Identity != nil {
		uid, gid = spec.Identity.UID, spec.Identity.GID
	}
	var err error
	if app.notify, err = childproc.OpenNotify(a.runtime.path, uid, gid); err != nil {
		return err
	}
	app.grant, err = a.options.Dialects.Issue(handoff.Issue{
		Listeners:  a.listeners,
		Command:    a.options.Command,
		Generation: app.start.generation,
		Parent:     os.Getpid(),
	})
	if err != nil {
		return err
	}
	spec.Args, spec.Stdin, spec.Files, spec.PIDVars = app.grant.Command, app.grant.Stdin, app.grant.Files, app.grant.PIDVars
	spec.Env = append(append(spec.Env, app.grant.Env...), a.variables(app)...)
	return nil
}

func (a *apps) variables(app *app) []string {
	env := []string{
		"NOTIFY_SOCKET=" + app.notify.Path(),
		"GRACE_GENERATION=" + strconv.Itoa(app.start.generation),
		"GRACE_INSTANCE=" + strconv.Itoa(app.start.slot),
	}
	if d := a.options.Policy.Watchdog; d > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(d.Microseconds(), 10))
	}
	return env
}

func failedExit(path string, err error) childproc.Exit {
	failed := (*childproc.StartError)(nil)
	if errors.As(err, &failed) {
		return childproc.Exit{Err: failed}
	}
	failed = &childproc.StartError{Step: err.Error(), Path: path}
	if errors.As(err, &failed.Errno) {
		failed.Step = "making its descriptors"
	}
	return childproc.Exit{Err: failed}
}

// watch turns the end of one process into events.
func (a *apps) watch(app *app, p *childproc.Process) {
	instance, pid := app.start.instance, p.PID
	exit, err := p.Wait()
	if err != nil {
		a.post(noticed{"cannot watch the app", err.Error()})
	}
	if err := app.ear.catchUp(app.ctx); err != nil {
		a.post(noticed{"the app's last words may be lost", err.Error()})
	}
	a.post(exited{instance, pid, exit})
	if err := p.WaitRest(app.ctx.Done()); err != nil {
		a.post(noticed{"cannot watch what the app left behind", err.Error()})
	}
	a.post(emptied{instance, pid})
}

func (a *apps) dismiss(instance int) { a.running[instance].dismiss() }

func (a *apps) tell(t tell) { a.attempt(a.running[t.instance].main.Signal(t.signal)) }

func (a *apps) tellRest(t tellRest) {
	a.attempt(a.running[t.instance].main.SignalGroup(t.signal))
}

func (a *apps) follow(f follow) {
	app, ok := a.running[f.instance]
	if !ok {
		a.attempt(errors.Join(f.process.SignalGroup(syscall.SIGKILL), f.process.Reap()))
		return
	}
	app.launchers[app.main.PID] = app.main
	app.main = f.process
	go a.watch(app, f.process)
}

func (a *apps) kill(instance int) {
	app := a.running[instance]
	a.attempt(app.main.SignalGroup(syscall.SIGKILL))
	for _, p := range app.launchers {
		a.attempt(p.SignalGroup(syscall.SIGKILL))
	}
}

func (a *apps) reap(r reap) {
	app := a.running[r.instance]
	if p, ok := app.launchers[r.pid]; ok {
		delete(app.launchers, r.pid)
		a.attempt(p.Reap())
		return
	}
	a.attempt(app.main.Reap())
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
	delete(a.running, instance)
}

// attempt tells of an error that stops nothing. The loop cannot post to itself.
func (a *apps) attempt(err error) {
	if err != nil {
		go a.post(noticed{"something did not work", err.Error()})
	}
}

func (a *apps) count(c count) {
	go func() {
		n, err := a.inFlight(c.pids)
		if err != nil {
			a.post(counted{generation: c.generation, why: err.Error()})
			return
		}
		a.post(counted{generation: c.generation, inFlight: n})
	}()
}

func (a *apps) inFlight(roots []int) (int, error) {
	var pids []int
	for _, root := range roots {
		tree, err := childproc.Tree(root)
		if err != nil {
			return 0, err
		}
		pids = append(pids, tree...)
	}
	return handoff.InFlight(pids, a.listeners)
}
