package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/filewatch"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/gracerun/grace/supervisor/reexec"
)

// Run supervises the app until it has ended and returns grace's exit status. An
// error means that it never came to start the app.
//
// Run owns the process's signals, its threads, its orphans and its sockets meanwhile,
// and is to be called once in a process. Descriptors that grace itself was given are
// set close-on-exec, so that the app does not get them.
//
// Where another grace process has prepared for this process to be its successor, Run goes on
// with its app instead. And it may return when another one has taken over: with
// status 0, or with a *Replacement for one in this process.
func Run(o Options) (int, error) {
	if err := o.Validate(); err != nil {
		return machine.StatusFailure, err
	}
	go prepareEncoding()
	s := &service{signals: catchSignals(o.Signals)}
	transport, before, err := reexec.Find()
	if err != nil {
		return machine.StatusFailure, err
	}
	s.transport = transport
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), mostProcs))
	closeInheritedOnExec()
	s.options = o
	if s.options.Options, err = o.Settled(); err != nil {
		return machine.StatusFailure, err
	}
	s.examineFarewell()
	if before != nil {
		return s.succeed(before)
	}
	if s.socket, err = openControl(&s.options); err != nil {
		return machine.StatusFailure, err
	}
	s.findKept()
	left, err := s.findAbandoned()
	if left != nil {
		return s.adopt(left)
	}
	if err == nil {
		err = s.open()
	}
	if err != nil {
		return host.StatusOf(err), errors.Join(err, s.close())
	}
	s.assemble()
	s.apps.First = s.first
	s.beginTakeover()
	status, err := s.serve(s.announce)
	if s.left() {
		return status, err
	}
	return status, errors.Join(err, s.close())
}

// service is all that a grace process has. It is built up once and then belongs to Run.
type service struct {
	options        Options
	transport      *reexec.Transport
	notOurChildren bool // apps may have parents that are no grace
	signals        *signals
	farewell       control.Farewell // as grace was told, or can
	mayFarewell    func() error     // why it cannot
	first          *host.LaunchSpec // whose environment the hooks have
	reaper         *childproc.Reaper
	listeners      []*socket.Listener
	metrics        *socket.Listener
	steering       *steering.Steering
	pidFile        pidFile
	socket         *control.Socket
	runtime        host.RuntimeDir
	store          *fdStore
	kept           host.Kept
	boot           string
	birth          childproc.Birth
	uncapturing    []int // instances whose capture has ended with the grace process before this one

	loop          *loop
	apps          *host.Host
	hooks         *host.Hooks
	notifier      *sdNotifier
	endpoint      *controlEndpoint
	exporter      *exporter
	listenerWatch *listenerWatch
	fileWatch     *filewatch.Watch
	handover      *handover
	takeover      *host.Takeover
	saved         *stateWriter
	serving       *servingLine
	idleMemory    idleMemory
}

// open makes what a first grace needs.
func (s *service) open() (err error) {
	if s.first, err = host.Resolve(s.options.Options); err != nil {
		return err
	}
	if s.reaper, err = childproc.NewReaper(); err != nil {
		return err
	}
	if s.steering, err = host.OpenSteering(s.options.Options, host.Live(s.unowned)); err != nil {
		return err
	}
	s.runtime = host.OpenRuntimeDir(s.first.Identity)
	s.openTakeover()
	if s.listeners, err = s.bindAll(); err != nil {
		return err
	}
	if s.metrics, err = bindMetrics(s.options); err != nil {
		return err
	}
	if s.options.PIDFile != "" {
		s.signals.awaitAll()
	}
	if s.pidFile, err = writePIDFile(s.options.PIDFile); err != nil {
		return err
	}
	return nil
}

// assemble makes the parts that work with what was opened.
func (s *service) assemble() {
	s.allowFarewell()
	managed := os.Getenv("NOTIFY_SOCKET") != "" && s.options.Policy.ReleaseStatus == 0
	s.options.Policy.NoRelease = os.Getpid() == 1 || managed
	s.options.Policy.Steered = s.steering != nil // the process before this one may have steered more
	s.options.Policy.Shared = len(sharedOf(s.listeners)) > 0
	s.loop = newLoop(s.options.Policy, describeOutput(), &logSink{s.options.Log})
	s.hooks = host.NewHooks(s.options.Options, s.options.Name, s.first, s.reaper, s.loop.post)
	s.serving = &servingLine{service: s}
	s.loop.audience = slices.Concat([]audience{s.signals}, // before anybody reads that the app serves
		s.loop.audience, []audience{hookRunner{s.hooks}, s.serving, farewellLoader{s}, &threadReserve{}, soleProc{}, &s.idleMemory})
	s.apps = &host.Host{
		Options: s.options.Options, Reaper: s.reaper, Held: s.listeners, Listeners: sharedOf(s.listeners), Stored: s.store != nil,
		Steering: s.steering, Takeover: s.takeover, Unowned: s.unowned, Runtime: s.runtime, Post: s.loop.post,
		Launches: map[int]*host.Preparation{}, Running: map[int]*host.InstanceProcess{}, Programs: map[int]host.Program{},
		Farewells: host.NewFarewells(), Ending: make(chan struct{}),
		Looks: make(host.Semaphore, host.MostLooks), LookUps: make(host.Semaphore, host.MostLooks), Locked: host.NewLockedFiles(),
	}
	s.loop.performer = performer{s.loop, s.loop.timers, s.loop.callers, s.apps}
	s.handover = &handover{service: s}
	s.loop.successor, s.loop.save, s.boot = s.handover, s.save, boot()
	s.birth = childproc.OwnBirth()
}

// serve returns when the app has ended or another grace process has taken over. Before it
// begins, greet tells the world.
func (s *service) serve(greet func()) (int, error) {
	if err := s.openServers(); err != nil {
		return machine.StatusFailure, errors.Join(err, s.closeServers())
	}
	s.signals.listen(s.loop.offer, s.reaper.ReapOrphans)
	steered := make(chan struct{})
	go func() {
		defer close(steered)
		host.Guard(func() { host.WatchSteering(s.steering, s.loop.post) }, s.apps.Notice("cannot watch the app's sockets any more"))()
	}()
	s.saved = openStateWriter(s)
	s.notifier = openSDNotifier(s.options.Policy, s.loop.post)
	s.notifier.attend(s.loop)
	greet()
	status := s.loop.run()
	s.idleMemory.end()
	if s.left() { // who asks for the serving line waits for the steering, which the next grace process has
		return 0, s.handover.leave()
	}
	s.serving.asking.Wait()
	if s.apps.Detached {
		s.saved.giveUp()
	}
	s.saved.close()
	s.notifier.close()
	err := errors.Join(s.apps.Close(), s.apps.Farewells.Close(), s.closeServers(), host.CloseSteering(s.steering))
	s.hooks.Close()
	<-steered
	return status, err
}

// openServers makes those who ask, or look, while the loop runs.
func (s *service) openServers() (err error) {
	backend := &controlBackend{loop: s.loop, apps: s.apps, name: s.options.Name, version: s.options.Version, started: time.Now(), farewell: s.farewell, uncapturing: s.uncapturing}
	if s.endpoint, err = openControlEndpoint(s.socket, backend); err != nil {
		return err
	}
	if s.exporter, err = openExporter(s.metrics, s.loop, backend, s.options.Log); err != nil {
		return err
	}
	s.fileWatch = s.openFileWatch()
	s.listenerWatch, err = openListenerWatch(s.listeners, s.loop.post)
	return err
}

func (s *service) closeServers() error {
	if s.fileWatch != nil {
		_ = s.fileWatch.Close() // nothing depends on it any more
	}
	return errors.Join(s.endpoint.close(), s.exporter.close(), s.listenerWatch.close())
}

// close undoes what open has done.
func (s *service) close() error {
	closeListeners(s.listeners)
	if s.metrics != nil {
		s.metrics.Close() // the end of grace: there is nothing to do about an error
	}
	var err error
	if s.socket != nil && s.endpoint == nil {
		err = s.socket.Close()
	}
	return errors.Join(err, s.runtime.Close(), s.pidFile.remove())
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

// findKept looks for what the service manager has kept. Grace does without it where it has to.
func (s *service) findKept() {
	var err error
	if s.kept, err = host.FindKept(); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot use the descriptors that the service manager has kept")
	}
	s.openStore(slices.Collect(maps.Keys(s.kept)))
}

func (s *service) openStore(stored []string) {
	var err error
	if s.store, err = openFDStore(stored); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot keep descriptors with the service manager")
	}
}

// bindAll takes the listeners that were kept, and removes all else that was: its addresses may be wanted.
func (s *service) bindAll() ([]*socket.Listener, error) {
	bound := make([]*socket.Listener, len(s.options.Listen))
	var err error
	for i, address := range s.options.Listen {
		if bound[i], err = s.kept.TakeListener(address); err != nil {
			s.options.Log.Warn().Str("address", address.Addr).Str("why", err.Error()).Msg("binding the address anew")
		}
	}
	rest := slices.Collect(maps.Keys(s.kept))
	steered := s.kept.TakeSteered()
	s.kept.Close()
	if err := s.store.empty(rest); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot remove what the service manager has kept")
	}
	if err := host.Reserve(s.steering, s.options.Options, steered); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot go on with the sockets of the app that was stopped")
	}
	for i, address := range s.options.Listen {
		if bound[i] != nil {
			continue
		}
		if bound[i], err = s.bind(address); err != nil {
			closeListeners(slices.DeleteFunc(bound, func(l *socket.Listener) bool { return l == nil }))
			return nil, err
		}
	}
	return bound, nil
}

func (s *service) bind(address socket.Address) (*socket.Listener, error) {
	o := s.options
	l, err := socket.Bind(address)
	inUse := (*socket.InUseError)(nil)
	if !errors.As(err, &inUse) {
		return l, err
	}
	if s.takeover != nil {
		return s.takeover.Bind(inUse)
	}
	if !o.Evict {
		return nil, fmt.Errorf("%w (%s)", err, host.InUseRemedy(inUse))
	}
	o.Log.Warn().Str("address", address.Addr).Str("why", err.Error()).Msg("evicting")
	if err := socket.Evict(inUse, host.EvictGrace); err != nil {
		return nil, err
	}
	return socket.Bind(address)
}

// sharedOf leaves out those that only reserve an address.
func sharedOf(listeners []*socket.Listener) []*socket.Listener {
	return slices.DeleteFunc(slices.Clone(listeners), func(l *socket.Listener) bool { return l.Address().Steer })
}

func closeListeners(listeners []*socket.Listener) {
	for _, l := range listeners {
		l.Close() // the end of grace: there is nothing to do about an error
	}
}

func (s *service) announce() {
	for _, l := range s.listeners {
		s.options.Log.Info().Str("name", l.Name()).Str("network", l.Network()).Str("address", l.Bound()).Msg("listening")
	}
	for _, hint := range []string{host.StopSignalHint(s.options.Options), host.SharedSocketHint(s.options.Options), host.OwnDataHint(s.options.Options)} {
		if hint != "" {
			s.options.Log.Warn().Msg(hint)
		}
	}
	if address := host.Unpaused(s.options.Options); address != "" {
		const why = "grace cannot pause it, and some apps close what they accept while they stop, as Go's Shutdown does (use --listen ADDR?steer=true, or leave --listen out)"
		s.options.Log.Info().Str("address", address).Str("why", why).Msg("an upgrade may lose new connections of a socket that generations share")
	}
	s.notifier.begin()
}

// listenerWatch sees that the held listeners live; nil before it was opened.
type listenerWatch struct {
	watch *socket.HangupWatch
	ended chan struct{}
}

func openListenerWatch(listeners []*socket.Listener, post func(machine.Event)) (*listenerWatch, error) {
	watch, err := socket.NewHangupWatch(sharedOf(listeners))
	if err != nil {
		return nil, err
	}
	p := &listenerWatch{watch, make(chan struct{})}
	go func() {
		defer close(p.ended)
		reviveAll(watch, post)
	}()
	return p, nil
}

// close returns when nobody is at a listener any more.
func (p *listenerWatch) close() error {
	if p == nil {
		return nil
	}
	err := p.watch.Close()
	<-p.ended
	return err
}

// reviveAll ends when the watch is closed.
func reviveAll(watch *socket.HangupWatch, post func(machine.Event)) {
	for {
		l, err := watch.Wait()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			post(machine.Noticed{Text: "cannot watch the listeners", Why: err.Error()})
			return
		}
		switch err := l.Revive(); {
		case err == nil:
			post(machine.Revived{Listener: l.Name()})
		case errors.Is(err, socket.ErrLetGo): // at a stop an app may shut it down
		case errors.Is(err, socket.ErrReplaced):
			post(machine.Revived{Listener: l.Name(), Replaced: true})
		default:
			post(machine.Revived{Listener: l.Name(), Why: err.Error()})
		}
	}
}

// unowned gives those of the sockets that no process of the app has open. Where one of them
// cannot be looked into, it may have any.
func (s *service) unowned(inodes []uint64) []uint64 {
	self := os.Getpid()
	others := func() ([]int, error) {
		pids, err := s.kin(self)
		return slices.DeleteFunc(pids, func(pid int) bool { return pid == self }), err
	}
	unowned, err := childproc.Unowned(inodes, others)
	if err != nil {
		return nil
	}
	return unowned
}

// kin are all who may belong to the app.
func (s *service) kin(self int) ([]int, error) {
	if s.notOurChildren {
		return childproc.Everybody()
	}
	return childproc.Tree(self)
}
