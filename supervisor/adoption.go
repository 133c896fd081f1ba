package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// AdoptMode says what to do with the app of a grace process that was killed.
type AdoptMode string

// The modes of adoption. Auto adopts where there is something to adopt.
const (
	AdoptAuto    AdoptMode = "auto"
	AdoptNever   AdoptMode = "never"
	AdoptRequire AdoptMode = "require"
)

// abandoned is what a grace process has left that was killed.
type abandoned struct {
	dir   host.RuntimeDir
	state *savedState
}

// findAbandoned looks for the app that this grace process is to go on with, and removes what nobody needs any more. It gives nil if there
// is none. The name is this process's by now, so nobody else is about to adopt the same.
func (s *service) findAbandoned() (found *abandoned, err error) {
	kept, invalid := s.keptState()
	var errs []error
	for _, dir := range host.RuntimeDirs() {
		a, err := s.lookAt(dir)
		switch {
		case err != nil && kept.isIn(dir): // the state that was kept does instead
		case err != nil:
			errs = append(errs, fmt.Errorf("cannot adopt the app of the grace process that was killed, whose state is in %s: %w (end the processes of the app and remove the directory, or start grace with --adopt never)", dir.Path, err))
		case a != nil && found == nil:
			found = a
		case a != nil:
			_ = a.dir.Leave()
		}
	}
	if err = errors.Join(errs...); err == nil {
		found, err = s.newest(found, kept)
	}
	if found == nil && err == nil && invalid != nil {
		err = fmt.Errorf("cannot adopt the app of the grace process that was killed, whose state the service manager has kept: %w (end the processes of the app, or start grace with --adopt never)", invalid)
	}
	if found == nil && err == nil && s.options.Adopt == AdoptRequire {
		err = fmt.Errorf("cannot adopt an app (--adopt require): no grace process called %q was killed whose app still runs", s.options.Name)
	}
	return found, err
}

// keptState is the newest of those that the service manager has kept, and nil where it has none of this grace process's.
func (s *service) keptState() (newest *savedState, invalid error) {
	if s.options.Adopt == AdoptNever {
		return nil, nil
	}
	for _, text := range s.kept.TakeStates() {
		d, failed := readSaved(text)
		if failed != nil {
			invalid = errors.Join(invalid, failed)
			continue
		}
		if d.isOf(s.options) && d.lives() && (newest == nil || d.Written > newest.Written) {
			newest = d
		}
	}
	if newest != nil {
		return newest, nil
	}
	return nil, invalid
}

// isIn reports whether a state is of a directory; nil is of none.
func (d *savedState) isIn(dir host.RuntimeDir) bool { return d != nil && d.Host.Runtime == dir.Path }

// newest chooses between the state in a directory and the one that the service manager has kept. Either can be missing, and the directory too.
func (s *service) newest(found *abandoned, kept *savedState) (*abandoned, error) {
	switch {
	case kept == nil, found != nil && found.state.Written >= kept.Written:
		return found, nil
	case found != nil && kept.isIn(found.dir):
		found.state = kept
		return found, nil
	case found != nil:
		_ = found.dir.Leave()
	}
	if kept.supervised() {
		return nil, fmt.Errorf("cannot adopt the app of the grace process that was killed: grace process %d still runs (end it first)", kept.PID)
	}
	dir := host.RuntimeDir{Path: kept.Host.Runtime}
	if err := dir.Recreate(kept.Host.Launches[kept.Machine.Current].Identity); err != nil {
		return nil, fmt.Errorf("cannot adopt the app of the grace process that was killed: %w", err)
	}
	return &abandoned{dir, kept}, nil
}

// lookAt gives nil for what is another one's. It locks nothing that another grace process may be about to adopt.
func (s *service) lookAt(dir host.RuntimeDir) (*abandoned, error) {
	text, err := dir.ReadState()
	var state *savedState
	if err == nil {
		state, err = readSavedIn(dir, text)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		sweep(dir)
		return nil, nil
	case err == nil && !state.lives():
		if state.over() && dir.Take() {
			_ = dir.Remove() // what cannot be removed stays
		}
		return nil, nil
	case s.options.Adopt == AdoptNever || !mentions(text, s.options.Name) || err == nil && !state.isOf(s.options):
		return nil, nil
	case !dir.Take():
		return nil, nil
	case err != nil:
		return nil, errors.Join(err, dir.Leave())
	}
	if text, err = dir.ReadState(); err == nil { // it may have been written meanwhile
		state, err = readSavedIn(dir, text)
	}
	if err == nil && state.supervised() {
		err = fmt.Errorf("grace process %d still runs (end it first)", state.PID)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Leave())
	}
	return &abandoned{dir, state}, nil
}

// sweep removes a directory without a state of which a grace process has made use that is gone. One of another version may lock none:
// it reads its sockets, and such a directory is not removed.
func sweep(dir host.RuntimeDir) {
	if !dir.HasSockets() || !dir.Take() {
		return
	}
	if _, err := dir.ReadState(); !errors.Is(err, fs.ErrNotExist) { // it was written meanwhile
		_ = dir.Leave()
		return
	}
	_ = dir.Remove() // what cannot be removed stays
}

func readSavedIn(dir host.RuntimeDir, text []byte) (*savedState, error) {
	state, err := readSaved(text)
	if err == nil && state.Host.Runtime != dir.Path {
		err = fmt.Errorf("the state is that of another runtime directory, %s", state.Host.Runtime)
	}
	return state, err
}

// mentions reports whether a state that cannot be read may be of this name.
func mentions(text []byte, name string) bool {
	return strings.Contains(string(text), `"Name":"`+name+`"`)
}

// adopt goes on with what a grace process has left that was killed. Where it cannot, it leaves the app alone.
func (s *service) adopt(left *abandoned) (int, error) {
	d := left.state
	files, err := d.Host.Recover(s.options.Options, &d.Machine, s.kept)
	if err == nil {
		err = s.take(left, files)
	}
	if err != nil {
		return machine.StatusFailure, errors.Join(fmt.Errorf("cannot adopt the app of the grace process that was killed: %w", d.denied(err, s.options.Invocation)), s.socket.Close())
	}
	status, err := s.serve(func() { s.greetAdopted(d) })
	if s.listenerWatch == nil || s.left() { // the app lives, and its sockets stay
		return status, err
	}
	return status, errors.Join(err, s.close())
}

func (s *service) take(left *abandoned, files socket.Descriptors) error {
	d := left.state
	metrics := d.Host.Metrics
	d.Host.Metrics = nil // nobody has it any more
	if err := s.inheritAll(&d.handoverState, false, files); err != nil {
		return err
	}
	s.runtime.Lock = left.dir.Lock
	s.bindMetricsAgain(metrics)
	s.resumeTakeover(d.Machine)
	s.loop.begin = s.beginAdopted(d, s.loop.begin)
	return nil
}

// bindMetricsAgain binds the port that the kernel chose for the grace process before. Where that is not possible the app is not left
// alone for it.
func (s *service) bindMetricsAgain(before *socket.ListenerState) {
	if before != nil && s.options.Metrics != nil && strings.HasSuffix(s.options.Metrics.Addr, ":0") {
		again := *s.options.Metrics
		again.Addr = before.Bound
		s.options.Metrics = &again
	}
	var err error
	if s.metrics, err = bindMetrics(s.options); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot serve metrics")
	}
}

// beginAdopted says what was found before anything is done.
func (s *service) beginAdopted(d *savedState, begin func() []machine.Action) func() []machine.Action {
	return func() []machine.Action {
		actions := begin()
		why := machine.Said(fmt.Sprintf("grace %s, pid %d, was killed", d.Grace, d.PID))
		actions[0] = machine.Report{Fact: machine.Adopted, Generation: d.Machine.Current, PID: os.Getpid(), Why: why} // in place of TakenOver
		return actions
	}
}

// greetAdopted tells the world. What only this grace process has is no reason to leave the app alone where it cannot be had.
func (s *service) greetAdopted(d *savedState) {
	var err error
	if s.pidFile, err = writePIDFile(s.options.PIDFile); err != nil {
		s.options.Log.Warn().Str("why", err.Error()).Msg("cannot write the pid file")
	}
	for _, n := range d.Host.Notes() {
		s.options.Log.Warn().Str("why", n.Why).Msg(n.Text)
	}
	if len(s.uncapturing) > 0 {
		s.options.Log.Warn().Ints("instances", s.uncapturing).
			Str("why", "the capture of these instances has ended with the grace process that was killed: bind and listen fail with ENOSYS in them (run grace upgrade to replace them)").
			Msg("the app cannot open further sockets")
	}
	s.heedChanges(d)
	if d.Machine.Current != 0 {
		s.notifier.resume(d.Machine.Current)
		return
	}
	s.notifier.begin()
}

// heedChanges is for a command line that is another one than that of the grace process which was killed.
func (s *service) heedChanges(d *savedState) {
	if !slices.Equal(d.Command, s.options.Command) {
		go s.loop.post(machine.UpgradeRequested{Command: s.options.Command})
	}
	var before, now []string
	for _, l := range d.Host.Listeners {
		before = append(before, l.Address.Written)
	}
	for _, a := range s.options.Listen {
		now = append(now, a.Written)
	}
	if !slices.Equal(before, now) {
		s.options.Log.Warn().Strs("held", before).
			Str("why", "an adopted app keeps its listeners until it is stopped (stop grace and start it again to change them)").
			Msg("--listen has changed, which has no effect yet")
	}
}

// AbandonedApp is the app of a grace process that was killed and has no successor.
type AbandonedApp struct {
	Name        string
	Grace       int      // the pid
	Generations []string // what runs of each
	Dir         string   // where grace was started
	Command     []string // and how
}

// FindAbandonedApps lists those that this process may know of, for root those of all users. It changes nothing.
func FindAbandonedApps() (all []AbandonedApp) {
	for _, dir := range host.EveryRuntimeDir() {
		text, err := dir.ReadState()
		if err != nil {
			continue
		}
		if d, err := readSavedIn(dir, text); err == nil && !d.supervised() && d.lives() {
			all = append(all, AbandonedApp{Name: d.Name, Grace: d.PID, Generations: d.generations(), Dir: d.InvokedIn, Command: d.Invocation})
		}
	}
	return all
}

func (d *savedState) generations() (texts []string) {
	for _, g := range d.Machine.Generations {
		var pids []string
		for _, i := range g.Instances {
			if i.PID != 0 && childproc.Living(i.PID) {
				pids = append(pids, strconv.Itoa(i.PID))
			}
		}
		if len(pids) > 0 {
			texts = append(texts, fmt.Sprintf("generation %d (pid %s), %s since %s", g.Number, strings.Join(pids, ", "), g.Stage, g.Since.Format(time.DateTime)))
		}
	}
	return texts
}

// plain are the characters that a shell leaves alone.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"

// ShellQuoted is what a shell takes for these words.
func ShellQuoted(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; w == "" || strings.Trim(w, plain) != "" {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// denied says, where the app may not be looked into, what was found, and the two commands that end it.
func (d *savedState) denied(err error, invocation []string) error {
	if !errors.Is(err, childproc.ErrCannotLook) {
		return err
	}
	var pids []string
	for _, i := range d.Machine.AllInstances() {
		if i.PID != 0 {
			pids = append(pids, strconv.Itoa(i.PID))
		}
	}
	slices.Sort(pids)
	return fmt.Errorf("%w; the app runs on: %s; adopt it by \"sudo %s\", or end it by \"kill %s\" and start grace again%s",
		err, strings.Join(d.generations(), ", "), ShellQuoted(invocation...), strings.Join(pids, " "), restricted())
}

// ptraceScope is another file in tests.
var ptraceScope = "/proc/sys/kernel/yama/ptrace_scope"

// restricted names the setting by which a system keeps processes of one user from each other (Documentation/admin-guide/LSM/Yama.rst).
func restricted() string {
	text, _ := os.ReadFile(ptraceScope) // there is none without Yama
	scope := strings.TrimSpace(string(text))
	if scope == "" || scope == "0" {
		return ""
	}
	return fmt.Sprintf(" (kernel.yama.ptrace_scope is %s here, so that an ordinary user may not do it)", scope)
}
