package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/supervisor/control"
)

// evictGrace is how long an evicted process has between TERM and KILL.
const evictGrace = 5 * time.Second

// Run supervises the app until it has ended and returns grace's exit status. An
// error means that it never came to start the app.
//
// Run owns the process's signals, its orphans and its sockets meanwhile, and is
// to be called once in a process. Descriptors that grace itself was given are
// set close-on-exec, so that the app does not get them.
func Run(o Options) (int, error) {
	signals := catchSignals()
	closeInheritedOnExec()
	o, err := o.settled()
	if err != nil {
		return statusFailure, err
	}
	first, err := resolve(o)
	if err != nil {
		return statusOf(err), err
	}
	family, err := childproc.NewFamily()
	if err != nil {
		return statusFailure, err
	}
	listeners, err := bindAll(o)
	if err != nil {
		return statusFailure, err
	}
	defer closeListeners(listeners)
	metrics, err := bindMetrics(o)
	if err != nil {
		return statusFailure, err
	}
	if metrics != nil {
		defer metrics.Close() // the end of grace: there is nothing to do about an error
	}
	pidFile, err := writePIDFile(o.PIDFile)
	if err != nil {
		return statusFailure, err
	}
	socket, err := openControl(&o)
	if err != nil {
		return statusFailure, errors.Join(err, pidFile.remove())
	}
	runtime := openRuntimeDir(first.identity)
	status, err := supervise(o, first, signals, family, listeners, metrics, runtime, socket)
	return status, errors.Join(err, runtime.close(), pidFile.remove())
}

func supervise(o Options, first *launch, signals *signals, family *childproc.Family, listeners []*handoff.Listener, metrics *handoff.Listener, runtime runtimeDir, socket *control.Socket) (int, error) {
	steering, err := openSteering(o)
	if err != nil {
		return statusFailure, err
	}
	o.Policy.Steered = steering != nil
	o.Policy.Shared = slices.ContainsFunc(o.Listen, shared)
	l := newLoop(o.Policy, describeOutput(), &journal{o.Log})
	hooks := newHooks(o, first, family, l.post)
	l.audience = append(l.audience, hooks)
	apps := &apps{
		options: o, family: family, held: listeners, listeners: sharedOf(listeners), steering: steering, runtime: runtime, post: l.post,
		launches: map[int]*preparation{}, running: map[int]*app{},
	}
	l.host = apps
	desk := &desk{loop: l, apps: apps, name: o.Name, started: time.Now()}
	counter, err := openCounter(socket, desk)
	if err != nil {
		return statusFailure, err
	}
	exporter, err := openExporter(metrics, l, desk)
	if err != nil {
		return statusFailure, err
	}
	signals.listen(l.post, family.ReapOrphans)
	watch, err := handoff.NewHangupWatch(sharedOf(listeners))
	if err != nil {
		return statusFailure, err
	}
	revivals := make(chan struct{})
	go func() {
		defer close(revivals)
		reviveAll(watch, l.post)
	}()
	steered := make(chan struct{})
	go func() {
		defer close(steered)
		watchSteering(steering, l.post)
	}()
	announce(o, listeners)
	manager := openManager(o.Policy, l.post)
	manager.attend(l)
	manager.begin()
	status := l.run()
	manager.close()
	err = errors.Join(counter.close(), exporter.close(), watch.Close(), closeSteering(steering))
	hooks.close()
	<-revivals // it must not be at a listener that is closed
	<-steered
	return status, err
}

// closeInheritedOnExec: what a service manager gave to grace is not the app's.
func closeInheritedOnExec() {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return // no /dev/fd here; nothing that can be asked then
	}
	for _, entry := range entries {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

func bindAll(o Options) ([]*handoff.Listener, error) {
	var bound []*handoff.Listener
	for _, address := range o.Listen {
		l, err := bind(address, o)
		if err != nil {
			closeListeners(bound)
			return nil, err
		}
		bound = append(bound, l)
	}
	return bound, nil
}

func bind(address handoff.Address, o Options) (*handoff.Listener, error) {
	l, err := handoff.Bind(address)
	inUse := (*handoff.InUseError)(nil)
	if !errors.As(err, &inUse) {
		return l, err
	}
	if !o.Evict {
		return nil, fmt.Errorf("%w (stop it, choose another address, or have it ended by --evict)", err)
	}
	o.Log.Warn().Str("address", address.Addr).Str("why", err.Error()).Msg("evicting")
	if err := handoff.Evict(inUse, evictGrace); err != nil {
		return nil, err
	}
	return handoff.Bind(address)
}

// sharedOf leaves out those that only reserve an address.
func sharedOf(listeners []*handoff.Listener) []*handoff.Listener {
	return slices.DeleteFunc(slices.Clone(listeners), func(l *handoff.Listener) bool { return l.Address().Steer })
}

func closeListeners(listeners []*handoff.Listener) {
	for _, l := range listeners {
		l.Close() // the end of grace: there is nothing to do about an error
	}
}

func announce(o Options, listeners []*handoff.Listener) {
	for _, l := range listeners {
		o.Log.Info().Str("name", l.Name()).Str("network", l.Network()).Str("address", l.Bound()).Msg("listening")
	}
	if hint := stopSignalHint(o); hint != "" {
		o.Log.Warn().Msg(hint)
	}
}

// reviveAll ends when the watch is closed.
func reviveAll(watch *handoff.HangupWatch, post func(event)) {
	for {
		l, err := watch.Wait()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			post(noticed{"cannot watch the listeners", err.Error()})
			return
		}
		switch err := l.Revive(); {
		case err == nil:
			post(revived{listener: l.Name()})
		case errors.Is(err, handoff.ErrReplaced):
			post(revived{listener: l.Name(), replaced: true})
		default:
			post(revived{listener: l.Name(), why: err.Error()})
		}
	}
}
