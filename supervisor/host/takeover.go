package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
)

// TakeoverMode says whether the app takes its addresses over from who has them.
type TakeoverMode string

// The modes of a takeover. Safe is not from processes that somebody else would start again.
const (
	TakeoverNone  TakeoverMode = ""
	TakeoverSafe  TakeoverMode = "safe"
	TakeoverForce TakeoverMode = "force"
)

// steerAll has each instance get a socket of its own: one that was shared with who is replaced would not outlive what that does
// to it.
func steerAll(addresses []socket.Address) []socket.Address {
	all := slices.Clone(addresses)
	for i := range all {
		all[i].Steer = all[i].Steer || all[i].Stream() && !all[i].Unix()
	}
	return all
}

func takeablePath(a socket.Address) bool { return a.Network == "unix" && a.Addr[0] == '/' }

func takeable(a socket.Address) bool { return a.Stream() && !a.Unix() || takeablePath(a) }

func (o Options) validateTakeover() error {
	switch {
	case o.Takeover == TakeoverNone:
		return nil
	case o.Takeover != TakeoverSafe && o.Takeover != TakeoverForce:
		return fmt.Errorf("--takeover=%s: use --takeover, or --takeover=force", o.Takeover)
	case o.Evict:
		return errors.New("--takeover cannot go with --evict")
	case slices.ContainsFunc(o.Listen, func(a socket.Address) bool { return !takeable(a) }):
		return errors.New("--takeover takes over TCP listeners and unix stream sockets with a path only: leave --listen for other sockets out, or stop the server that has them")
	case len(o.Listen) == 0 && o.Capture == CaptureOff:
		return errors.New("--takeover needs --listen, or an app whose sockets are captured (remove --capture off)")
	}
	return nil
}

// Takeover finds who has the addresses that the app is to have, and takes their sockets. Nobody has started them under grace.
type Takeover struct {
	options  Options
	reaper   *childproc.Reaper
	steering *steering.Steering
	runtime  RuntimeDir
	one      Semaphore
	ended    atomic.Bool
	servers  sync.Map        // *server by pid, from the moment it was found
	slots    int             // that were given; of who has entered one
	found    []machine.Found // before the loop runs
}

// NewTakeover makes one that has found nobody.
func NewTakeover(o Options, r *childproc.Reaper, s *steering.Steering, d RuntimeDir) *Takeover {
	return &Takeover{options: o, reaper: r, steering: s, runtime: d, one: make(Semaphore, 1)}
}

// wanted is false once the app serves: who comes later has got in its way.
func (t *Takeover) wanted() bool { return t != nil && !t.ended.Load() }

func (t *Takeover) end() {
	if t != nil {
		t.ended.Store(true)
	}
}

// Found are the servers that Bind has found.
func (t *Takeover) Found() []machine.Found { return t.found }

// Skip leaves out a slot that is taken. It is called before the loop runs.
func (t *Takeover) Skip(slot int) { t.slots = max(t.slots, slot+1) }

// Bind reserves an address beside who has it.
func (t *Takeover) Bind(inUse *socket.InUseError) (*socket.Listener, error) {
	if inUse.Address.Unix() && t.options.Policy.Instances > 1 {
		return nil, fmt.Errorf("cannot take over %s: a path leads to one process: use --instances 1", inUse.Address.Addr)
	}
	found, err := t.take(inUse)
	if err != nil {
		return nil, err
	}
	if found != nil {
		t.found = append(t.found, *found)
	}
	if a := inUse.Address; a.Unix() {
		a.Steer = true
		return socket.ReservePath(a)
	}
	return socket.BindBeside(inUse.Address, inUse.Owner(), t.steering.Has)
}

// has tells whether all sockets at the address have become members since it was looked at: another instance binds it too.
func (t *Takeover) has(inUse *socket.InUseError) bool {
	t.one.enter()
	defer t.one.Release()
	inodes := inUse.Inodes()
	return len(inodes) > 0 && !slices.ContainsFunc(inodes, func(inode uint64) bool { return !t.steering.Has(inode) })
}

// take makes the sockets of who has an address members of the steering. It gives nil where that was done already.
func (t *Takeover) take(inUse *socket.InUseError) (*machine.Found, error) {
	t.one.enter()
	defer t.one.Release()
	found, err := t.takeFrom(inUse)
	if err != nil {
		return nil, fmt.Errorf("cannot take over %s: %w", inUse.Address.Addr, err)
	}
	return found, nil
}

func (t *Takeover) takeFrom(inUse *socket.InUseError) (*machine.Found, error) {
	if len(inUse.Holders) == 0 {
		return nil, fmt.Errorf("cannot see which process has it: %s", inUse.Unseen)
	}
	servers, err := findServers(inUse.Holders)
	if err == nil {
		err = t.check(servers)
	}
	if err != nil {
		return nil, err
	}
	servers = slices.DeleteFunc(servers, func(s server) bool { _, known := t.servers.Load(s.PID); return known })
	if len(servers) == 0 {
		return nil, nil
	}
	if err := t.follow(servers); err != nil {
		return nil, err
	}
	return t.include(servers)
}

func (t *Takeover) check(servers []server) error {
	for _, s := range servers {
		if err := s.takeable(t.options.Takeover == TakeoverForce, t.restartOf); err != nil {
			return err
		}
	}
	return nil
}

func (t *Takeover) follow(servers []server) error {
	for i := range servers {
		p, err := t.reaper.Follow(servers[i].PID)
		if err != nil {
			return err
		}
		servers[i].process = p
		var why error
		if servers[i].notify, why, err = t.runtime.openNotify(nil); err != nil {
			return errors.Join(why, err)
		}
	}
	return nil
}

func (t *Takeover) include(servers []server) (*machine.Found, error) {
	var outsiders []steering.Outsider
	var found machine.Found
	for i, s := range servers {
		sockets, err := s.sockets(t.steering.Paths())
		if err != nil {
			closeOutsiders(outsiders)
			return nil, err
		}
		for _, o := range sockets {
			o.InstanceKey = steering.InstanceKey{Generation: machine.Foreign, Instance: t.slots + i}
			outsiders = append(outsiders, o)
		}
		found.Servers = append(found.Servers, machine.Server{Slot: t.slots + i, PID: s.PID})
	}
	if err := t.steering.Include(outsiders); err != nil {
		return nil, err
	}
	for _, s := range servers {
		t.servers.Store(s.PID, &s)
	}
	t.slots += len(servers)
	found.Launch, found.Signal = servers[0].launch(), t.signal(servers[0])
	return &found, nil
}

func closeOutsiders(outsiders []steering.Outsider) {
	for _, o := range outsiders {
		_ = socket.CloseFD(o.FD)
	}
}

// signal is the one on which the server finishes its requests.
func (t *Takeover) signal(s server) syscall.Signal {
	if t.options.TakeoverSignal != 0 {
		return t.options.TakeoverSignal
	}
	for name, signal := range graceful {
		if isProgram(filepath.Base(s.executable()), name) {
			return signal
		}
	}
	return t.options.Policy.StopSignal
}

// server is the main process of a server that grace has not started.
type server struct {
	sockdiag.Holder
	process *childproc.Process
	notify  *childproc.NotifySocket // of which it knows nothing: it is followed as an instance is
}

// findServers gives the topmost of the processes that have a socket: a server's workers have it from their parent.
func findServers(holders []sockdiag.Holder) ([]server, error) {
	has := map[int]sockdiag.Holder{}
	for _, h := range holders {
		has[h.PID] = h
	}
	top := map[int]bool{}
	for _, h := range holders {
		pid := h.PID
		for {
			parent, err := childproc.Parent(pid)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			if _, too := has[parent]; !too {
				break
			}
			pid = parent
		}
		top[pid] = true
	}
	var servers []server
	for _, pid := range slices.Sorted(maps.Keys(top)) {
		servers = append(servers, server{Holder: has[pid]})
	}
	return servers, nil
}

// sockets are duplicates of all that the server listens on: at TCP addresses, and at these paths.
func (s server) sockets(paths []string) (all []steering.Outsider, err error) {
	tree, err := childproc.Tree(s.PID)
	if err != nil {
		return nil, err
	}
	listening, err := sockdiag.Listening(tree)
	if err != nil {
		return nil, err
	}
	found, err := childproc.DuplicateSockets(slices.Collect(maps.Keys(listening)), tree)
	if err != nil {
		closeAll(found)
		return nil, s.mayNot(err)
	}
	for _, fd := range found {
		all = append(all, steering.Outsider{FD: fd})
	}
	for _, path := range paths {
		fd, err := s.socketAt(path, tree)
		if err != nil {
			closeOutsiders(all)
			return nil, err
		}
		if fd >= 0 {
			all = append(all, steering.Outsider{FD: fd, Path: path})
		}
	}
	return all, nil
}

// socketAt is a duplicate of what the server listens on at a path, or -1.
func (s server) socketAt(path string, tree []int) (int, error) {
	at, err := sockdiag.UnixHolding(path)
	if err != nil {
		return -1, err
	}
	maps.DeleteFunc(at, func(inode uint64, uid int) bool {
		holds := func(pid int) bool { return sockdiag.HoldsAny(pid, map[uint64]int{inode: uid}) }
		return !slices.ContainsFunc(tree, holds)
	})
	found, err := childproc.DuplicateSockets(slices.Collect(maps.Keys(at)), tree)
	if err != nil {
		closeAll(found)
		return -1, s.mayNot(err)
	}
	for inode, fd := range found {
		delete(found, inode)
		closeAll(found)
		return fd, nil
	}
	return -1, nil
}

// mayNot is nil for nil.
func (s server) mayNot(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot duplicate the sockets of process %d: %w (start grace as root, or as user %s with CAP_SYS_PTRACE)", s.PID, err, s.User)
}

func (s server) executable() string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.PID)) // it is only shown
	return path
}

func (s server) launch() machine.LaunchSpec {
	dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", s.PID))
	path := s.executable()
	return machine.LaunchSpec{Path: path, Executable: path, Command: childproc.Arguments(s.PID), Dir: dir}
}

// takeOver is for an address that the app is about to bind.
func (a *Host) takeOver(inUse *socket.InUseError) error {
	found, err := a.Takeover.take(inUse)
	if err == nil && found != nil {
		a.Post(*found)
		a.awaitSaved() // who adopts the app that is let bind has to know whom it replaces
	}
	return err
}

// Follow goes on as with an instance that was started. Nothing is said to its NOTIFY_SOCKET.
func (a *Host) Follow(f machine.Follow) {
	ctx, cancel := context.WithCancel(context.Background())
	if a.Launches[machine.Foreign] == nil {
		a.Launches[machine.Foreign] = NewPreparation(&LaunchSpec{umask: -1})
	}
	found, _ := a.Takeover.servers.Load(f.PID)
	s := found.(*server)
	app := &InstanceProcess{
		start: machine.Start{Generation: machine.Foreign, Instance: f.Instance, Slot: f.Slot}, generation: machine.Foreign, ctx: ctx, cancel: cancel,
		launch: a.Launches[machine.Foreign].Launch, processes: []*childproc.Process{s.process}, notify: s.notify, plan: &socket.SocketPlan{Stdin: -1},
	}
	app.waiting, app.dismiss = context.WithCancel(ctx)
	app.dismiss()
	app.serving, app.leave = context.WithCancel(ctx)
	a.Running[f.Instance] = app
	app.reader = newNotifyReader(a, f.Instance, app.notify, f.PID)
	a.follows(app, app.main())
	app.hear()
	a.lookAfter(app)
}

// Leave ends what is done for the processes that were to be replaced. They are watched no more.
func (a *Host) Leave(machine.Leave) {
	a.Takeover.end()
	for instance, app := range a.Running {
		if app.generation == machine.Foreign {
			app.cancel()
			delete(a.Running, instance)
			a.inOrder("cannot close what belonged to an instance", app.close)
		}
	}
	if p := a.Launches[machine.Foreign]; p != nil {
		p.cancel()
		delete(a.Launches, machine.Foreign)
	}
	a.retireFarewell(machine.Foreign)
	a.inOrder("cannot leave the sockets to their processes as they were", func() error { return a.Steering.GiveBack(machine.Foreign) })
}
