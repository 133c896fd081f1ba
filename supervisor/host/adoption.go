package host

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// Save describes the apps of a snapshot for who is to go on with them after this grace process was killed. It is the loop's. There
// are no values of the environment in it, and no sockets of the steering. It adds to storing, if that is not nil, what a service manager can keep.
func (a *Host) Save(m machine.Snapshot, storing *Storing) HostState {
	s := HostState{Uncapturable: a.uncapturable.Load(), Runtime: a.Runtime.Path, HTTP: a.Farewells.spoken(), Launches: map[int]LaunchSpecState{}, Batches: map[int]int{}}
	for _, l := range a.Held {
		s.Listeners = append(s.Listeners, l.State())
		storing.addListener(l)
	}
	for _, g := range m.Generations {
		if g.Stage == machine.StagePreparing {
			continue
		}
		if g.Of != 0 {
			s.Batches[g.Number] = g.Of
		} else if p, ok := a.Launches[g.Number]; ok && p.launch() != nil {
			launch := p.Launch.State()
			launch.Env = nil
			s.Launches[g.Number] = launch
		}
		for _, i := range g.Instances {
			app, ok := a.Running[i.ID]
			switch {
			case ok && i.PID != 0:
				s.Apps = append(s.Apps, app.save())
				storing.addInstance(app)
			case ok && i.Phase == machine.PhaseStarting:
				s.Starts = append(s.Starts, StartState{app.moved(), a.captures()})
			}
		}
	}
	return s
}

// save leaves out what ends with grace.
func (a *InstanceProcess) save() InstanceProcessState {
	s := savedInstance(StartState{a.moved(), a.calls != nil || a.uncaptured}, a.main().State(), a.notify.Path())
	if a.calls != nil {
		s.LastCall = a.calls.Last()
	}
	for _, p := range a.processes {
		s.Mains = append(s.Mains, p.PID)
	}
	for _, p := range a.processes[:len(a.processes)-1] {
		s.Launchers = append(s.Launchers, p.State())
	}
	select {
	case <-a.reader.ready:
		s.Said = true
	default:
	}
	return s
}

// savedInstance has none of the descriptors that end with grace.
func savedInstance(start StartState, main childproc.ProcessState, notify string) InstanceProcessState {
	return InstanceProcessState{
		Start: start.Start, Captured: start.Captured, Main: main, Calls: -1,
		Predecessors: socket.SocketPlanState{Predecessor: -1}, Notify: childproc.NotifyState{Path: notify, FD: -1},
	}
}

// Check refuses what no grace process has written: the file can have been changed.
func (s HostState) Check() error {
	for _, p := range s.processes() {
		if p.PID <= 1 || p.PID == os.Getpid() {
			return fmt.Errorf("the state has process %d as one of the app's", p.PID)
		}
	}
	for _, app := range s.Apps {
		name, inside := strings.CutPrefix(app.Notify.Path, s.Runtime+"/")
		if inside = inside && s.Runtime != "" && !strings.Contains(name, "/"); !inside && !strings.HasPrefix(app.Notify.Path, "@") {
			return fmt.Errorf("the state has a NOTIFY_SOCKET outside of the runtime directory: %q", app.Notify.Path)
		}
	}
	for _, l := range s.Listeners {
		if l.FD < 0 || l.Inode == 0 {
			return fmt.Errorf("the state has a listener without a socket: %q", l.Bound)
		}
	}
	if s.Steering == nil {
		return nil
	}
	return s.Steering.Check()
}

// Lives reports whether any process of the state lives, or of an instance that was just being started.
func (s HostState) Lives(m machine.Snapshot) bool {
	for _, p := range s.processes() {
		fd, err := p.Open()
		_ = socket.CloseFD(fd) // it is only looked at
		if err != nil || fd >= 0 && childproc.Living(p.PID) {
			return true
		}
	}
	pids, err := s.unknown(m)
	return err != nil || len(pids) > 0
}

// unknown are the processes of instances of which the state says only that they are being started: they have the path of a
// NOTIFY_SOCKET to be known by.
func (s HostState) unknown(m machine.Snapshot) ([]int, error) {
	for _, i := range m.AllInstances() {
		if i.Phase == machine.PhaseStarting && i.PID == 0 {
			return childproc.HaveVariable("NOTIFY_SOCKET", s.isUnknown)
		}
	}
	return nil, nil
}

// recognize takes the instances into the state that were started in the last moments of the grace process, and gives the processes
// that are of none. On a held socket an instance may have clients from its first moment on.
func (s *HostState) recognize(m *machine.Snapshot, unknown []int) (others []int) {
	recognized := map[int]bool{}
	for _, pid := range unknown {
		app, ok := s.started(pid)
		if !ok || s.app(app.Instance) != nil || !m.Started(app.Instance, pid) {
			continue
		}
		s.Apps = append(s.Apps, app)
		for _, member := range treeOf(pid) {
			recognized[member] = true
		}
	}
	return slices.DeleteFunc(unknown, func(pid int) bool { return recognized[pid] })
}

// started describes the instance of which this is the main process. Its children have its environment too, but it leads the group. Another
// user's process may have such an environment as well, but cannot know how a NOTIFY_SOCKET is called.
func (s *HostState) started(pid int) (app InstanceProcessState, ok bool) {
	process, err := childproc.Describe(pid)
	if err != nil || !process.Group {
		return app, false
	}
	env, err := childproc.Environment(pid)
	if err != nil {
		return app, false
	}
	notify := variable(env, "NOTIFY_SOCKET")
	if info, err := os.Lstat(notify); err != nil || info.Mode().Type() != os.ModeSocket || filepath.Dir(notify) != s.Runtime || !s.isUnknown(notify) {
		return app, false
	}
	i := slices.IndexFunc(s.Starts, func(start StartState) bool { return isSubset(instanceVariables(start.Start), env) })
	if i < 0 {
		return app, false
	}
	process.Path = s.Launches[s.Starts[i].Generation].Path
	app = savedInstance(s.Starts[i], process, notify)
	app.Mains = []int{pid}
	return app, true
}

func isSubset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(v string) bool { return !slices.Contains(all, v) })
}

// variable is empty where there is none.
func variable(env []string, name string) string {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

func (s HostState) processes() (all []*childproc.ProcessState) {
	for i := range s.Apps {
		all = append(all, s.Apps[i].processes()...)
	}
	return all
}

func (s *InstanceProcessState) processes() []*childproc.ProcessState {
	all := []*childproc.ProcessState{&s.Main}
	for i := range s.Launchers {
		all = append(all, &s.Launchers[i])
	}
	return all
}

// Uncapturing are the instances that were captured by a grace process that was killed, and are no more: the kernel answers their
// calls with ENOSYS (seccomp_do_user_notification in kernel/seccomp.c).
func (s HostState) Uncapturing() (instances []int) {
	for _, a := range s.Apps {
		if a.Captured && a.Calls < 0 {
			instances = append(instances, a.Instance)
		}
	}
	return instances
}

func (s *HostState) note(text, why string) {
	s.notes = append(s.notes, machine.Noticed{Text: text, Why: why})
}

// Notes are what Recover has found that an operator may want to know.
func (s HostState) Notes() []machine.Noticed { return s.notes }

// Recover finds what a state is about, and was written by a grace process that was killed. What nobody has any more it leaves out
// of the state, or makes anew. It prefers what was kept. Instances that were being started it ends, and leaves it to the machine to start them anew, where
// they have lost what they need. The caller owns the descriptors.
func (s *HostState) Recover(o Options, m *machine.Snapshot, kept Kept) (socket.Descriptors, error) {
	files := socket.Descriptors{}
	defer kept.Close()
	unknown, err := s.unknown(*m)
	if err == nil {
		unknown = s.recognize(m, unknown)
		err = s.recoverProcesses(files, kept)
	}
	if err == nil {
		err = s.recoverSockets(files, kept, unknown)
	}
	if err == nil {
		err = s.recoverEnvironment(o)
	}
	if err == nil && len(m.Generations) > 1 { // nothing in the system was changed before
		err = farewell.ReleaseAbandoned(treesOf(s.processes()))
	}
	if err == nil {
		err = childproc.End(append(unknown, s.endStarts(m, files)...))
	}
	if err == nil {
		err = s.recoverNotify(files, kept)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	s.recoverCalls(files, kept)
	s.recoverEnded(files, kept)
	s.recoverPrograms(files)
	return files, nil
}

// recoverEnded comes last: the number of a process that has ended may be another's. How it has ended its pidfd tells.
func (s *HostState) recoverEnded(files socket.Descriptors, kept Kept) {
	for number, p := range s.processes() {
		if fd, ok := kept.take(processName(*p)); ok && p.PIDFD < 0 {
			p.PIDFD = processFiles + number
			files[p.PIDFD] = fd
		} else if ok {
			unix.Close(fd)
		}
	}
}

// open prefers the pidfd that was kept, as the process may be hidden from grace.
func (k Kept) open(p *childproc.ProcessState) (pidfd int, err error) {
	fd, ok := k[processName(*p)]
	if !ok {
		return p.Open()
	}
	if ended, err := readable(fd); ended || err != nil {
		return -1, err
	}
	delete(k, processName(*p))
	return fd, nil
}

func readable(pidfd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0, err
}

// recoverProcesses leaves -1 for the pidfd of one that has ended.
func (s *HostState) recoverProcesses(files socket.Descriptors, kept Kept) error {
	for number, p := range s.processes() {
		fd, err := kept.open(p)
		if err != nil {
			return err
		}
		p.PIDFD = -1
		if fd >= 0 {
			p.PIDFD = processFiles + number
			files[p.PIDFD] = fd
		}
	}
	return nil
}

// endStarts takes the instances out of the state that were being started, and that can come to nothing: a captured one that has no
// socket yet gets none any more. It gives their processes.
func (s *HostState) endStarts(m *machine.Snapshot, files socket.Descriptors) (pids []int) {
	for _, g := range m.Generations {
		for n := range g.Instances {
			i := &g.Instances[n]
			if i.Phase != machine.PhaseStarting {
				continue
			}
			if app := s.app(i.ID); app != nil && app.Captured && !s.listens(app) {
				i.PID, i.Processes = 0, 0
				pids = append(pids, s.dismiss(i.ID, files)...)
			}
			if i.PID == 0 && s.Steering != nil {
				s.Steering.Vacate(steering.InstanceKey{Generation: g.Number, Instance: i.Slot})
			}
		}
	}
	return pids
}

// listens asks the system too: what the app has done last may not be in the state.
func (s *HostState) listens(app *InstanceProcessState) bool {
	m := steering.InstanceKey{Generation: app.Generation, Instance: app.Slot}
	return s.Steering != nil && s.Steering.Listens(m) || childproc.Listens(treesOf(app.processes()))
}

func (s *HostState) app(instance int) *InstanceProcessState {
	i := slices.IndexFunc(s.Apps, func(a InstanceProcessState) bool { return a.Instance == instance })
	if i < 0 {
		return nil
	}
	return &s.Apps[i]
}

// dismiss takes an instance out of the state, and gives those of its processes that live.
func (s *HostState) dismiss(instance int, files socket.Descriptors) (pids []int) {
	app := s.app(instance)
	for _, p := range append(slices.Clone(app.Launchers), app.Main) {
		if fd, ok := files[p.PIDFD]; ok {
			pids = append(pids, p.PID)
			delete(files, p.PIDFD)
			unix.Close(fd)
		}
	}
	s.Apps = slices.DeleteFunc(s.Apps, func(a InstanceProcessState) bool { return a.Instance == instance })
	return pids
}

func (s *HostState) isUnknown(notify string) bool {
	known := func(a InstanceProcessState) bool { return a.Notify.Path == notify }
	return s.Runtime != "" && strings.HasPrefix(notify, s.Runtime+"/") && !slices.ContainsFunc(s.Apps, known)
}

// What is not known by a descriptor's number of its own in the grace process that was killed gets one from here on.
const (
	processFiles = 1 << 24
	notifyFiles  = 2 << 24
	programFiles = 3 << 24
	callsFiles   = 4 << 24
	formerFiles  = 5 << 24
	newFiles     = 6 << 24
)

func (s *HostState) recoverSockets(files socket.Descriptors, kept Kept, more []int) error {
	var wanted []uint64
	for _, l := range s.Listeners {
		wanted = append(wanted, l.Inode)
	}
	if s.Steering != nil {
		wanted = append(wanted, s.Steering.Inodes()...)
	}
	found := kept.sockets(wanted)
	wanted = slices.DeleteFunc(wanted, func(inode uint64) bool { return found[inode] != 0 })
	duplicates, err := childproc.DuplicateSockets(wanted, append(treesOf(s.processes()), more...))
	maps.Copy(found, duplicates)
	if err != nil {
		closeAll(found)
		return err
	}
	if s.Steering != nil {
		s.Steering.Keep(found, files)
		s.recoverNewSockets(files, kept)
	}
	for i := range s.Listeners {
		if err := recoverListener(&s.Listeners[i], found, files); err != nil {
			return err
		}
	}
	return nil
}

// recoverNewSockets finds what captured apps have opened in the last moments of the grace process, of which the state does not tell. What
// cannot be had stays uncaptured.
func (s *HostState) recoverNewSockets(files socket.Descriptors, kept Kept) {
	for i := range s.Apps {
		app := &s.Apps[i]
		if !app.Captured {
			continue
		}
		tree := treesOf(app.processes())
		listening, _ := sockdiag.Listening(tree)
		fresh := slices.DeleteFunc(slices.Collect(maps.Keys(listening)), s.knows)
		found := kept.sockets(fresh)
		fresh = slices.DeleteFunc(fresh, func(inode uint64) bool { return found[inode] != 0 })
		duplicates, _ := childproc.DuplicateSockets(fresh, tree)
		maps.Copy(found, duplicates)
		for _, fd := range found {
			there := newFiles + fd
			if added, err := s.Steering.Add(steering.InstanceKey{Generation: app.Generation, Instance: app.Slot}, fd, there); added && err == nil {
				files[there] = fd
			} else {
				unix.Close(fd)
			}
		}
	}
}

func (s *HostState) knows(inode uint64) bool {
	held := func(l socket.ListenerState) bool { return l.Inode == inode }
	return slices.ContainsFunc(s.Listeners, held) || slices.Contains(s.Steering.Inodes(), inode)
}

func recoverListener(l *socket.ListenerState, found map[uint64]int, files socket.Descriptors) error {
	if fd, ok := found[l.Inode]; ok {
		files[l.FD] = fd
		return nil
	}
	again, err := socket.BindAgain(*l)
	if err != nil {
		return fmt.Errorf("no process of the app has the listener on %s any more: %w", l.Bound, err)
	}
	there := l.FD
	*l = again.State()
	files[there], l.FD = l.FD, there
	return nil
}

// treesOf are those of the processes that live, and all below them.
func treesOf(processes []*childproc.ProcessState) (pids []int) {
	for _, p := range processes {
		if p.PIDFD < 0 {
			continue
		}
		pids = append(pids, treeOf(p.PID)...)
	}
	return pids
}

func treeOf(pid int) []int {
	tree, err := childproc.Tree(pid)
	if err != nil {
		return []int{pid}
	}
	return tree
}

func (s *HostState) recoverNotify(files socket.Descriptors, kept Kept) error {
	for i := range s.Apps {
		app := &s.Apps[i]
		app.Notify.FD, app.Notify.Former = notifyFiles+i, nil
		before, ok := kept.takeNotify(app.Instance)
		if ok && childproc.NotifyIsThere(app.Notify.Path) {
			files[app.Notify.FD] = before
			continue
		}
		if ok { // its path was removed
			app.Notify.Former = []int{formerFiles + i}
			files[formerFiles+i] = before
		}
		uid, gid := senders(s.Launches[app.Generation].Identity)
		fd, err := childproc.RestoreNotify(app.Notify.Path, uid, gid)
		if err != nil {
			return err
		}
		files[app.Notify.FD] = fd
	}
	return nil
}

// recoverCalls comes last: from then on what the app asks can be answered.
func (s *HostState) recoverCalls(files socket.Descriptors, kept Kept) {
	for i := range s.Apps {
		app := &s.Apps[i]
		if fd, ok := kept.take(callsName(app.Instance)); ok && app.Captured {
			app.Calls = callsFiles + i
			files[app.Calls] = fd
		} else if ok {
			unix.Close(fd)
		}
	}
}

// recoverPrograms finds the executables where they were, or as what a process runs. Without them a restart goes by the path.
func (s *HostState) recoverPrograms(files socket.Descriptors) {
	s.Programs = map[int]int{}
	for generation, launch := range s.Launches {
		paths := []string{launch.Real}
		for _, pid := range s.mains(generation) {
			paths = append(paths, fmt.Sprintf("/proc/%d/exe", pid))
		}
		for _, path := range paths {
			p, file, err := openProgram(path)
			if err != nil || !launch.File.Same(file) {
				p.Close()
				continue
			}
			if p != 0 {
				s.Programs[generation] = programFiles + generation
				files[programFiles+generation] = int(p)
			}
			break
		}
	}
}

// mains are the processes that a generation's instances were started as, and that live.
func (s *HostState) mains(generation int) (pids []int) {
	for _, app := range s.Apps {
		for _, p := range append(slices.Clone(app.Launchers), app.Main) {
			if app.Generation == generation && p.PIDFD >= 0 {
				pids = append(pids, p.PID)
			}
		}
	}
	return pids
}

// recoverEnvironment reads what the apps were started with, or resolves it anew.
func (s *HostState) recoverEnvironment(o Options) error {
	for generation, launch := range s.Launches {
		if generation == machine.Foreign {
			continue // nothing of it is started again
		}
		env, err := s.environment(generation)
		fromFile := 0
		if err != nil {
			anew, failed := surroundings(o)
			if failed != nil {
				return errors.Join(err, failed)
			}
			env, fromFile = anew.Env, anew.fromFile
			s.note(fmt.Sprintf("restarts of generation %d get the environment and the --env-file of now", generation), err.Error())
		}
		launch.Env, launch.FromFile = env, fromFile
		s.Launches[generation] = launch
	}
	return nil
}

// environment leaves aside a process that has written over it, as programs do that show a title.
func (s *HostState) environment(generation int) ([]string, error) {
	var failed error
	for _, pid := range s.mains(generation) {
		env, err := childproc.Environment(pid)
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		ours := func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET="+s.Runtime+"/") }
		if slices.ContainsFunc(env, ours) {
			return handoff.CleanEnv(env), nil
		}
		failed = cmp.Or(failed, fmt.Errorf("process %d has written over its environment", pid))
	}
	return nil, cmp.Or(failed, errors.New("no process of the generation is left"))
}

func closeAll[K comparable](fds map[K]int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
