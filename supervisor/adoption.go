package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

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
	var errs []error
	for _, dir := range host.RuntimeDirs() {
		a, err := s.lookAt(dir)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("cannot adopt the app of the grace process that was killed, whose state is in %s: %w (end the processes of the app and remove the directory, or start grace with --adopt never)", dir.Path, err))
		case a != nil && found == nil:
			found = a
		case a != nil:
			_ = a.dir.Leave()
		}
	}
	err = errors.Join(errs...)
	if found == nil && err == nil && s.options.Adopt == AdoptRequire {
		err = fmt.Errorf("cannot adopt an app (--adopt require): no grace process called %q was killed whose app still runs", s.options.Name)
	}
	return found, err
}

// lookAt gives nil for what is another one's. It locks nothing that another grace process may be about to adopt.
func (s *service) lookAt(dir host.RuntimeDir) (*abandoned, error) {
	text, err := dir.ReadState()
	var state *savedState
	if err == nil {
		state, err = readSavedIn(dir, text)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !state.lives():
		if dir.Take() {
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
	if err != nil {
		return nil, errors.Join(err, dir.Leave())
	}
	return &abandoned{dir, state}, nil
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
	files, err := d.Host.Recover(s.options.Options, &d.Machine)
	if err == nil {
		err = s.adoptAll(left, files)
	}
	if err != nil {
		return machine.StatusFailure, errors.Join(fmt.Errorf("cannot adopt the app of the grace process that was killed: %w", err), s.socket.Close())
	}
	status, err := s.serve(func() {
		s.greetAdopted(d)
	})
	if s.listenerWatch == nil || s.left() { // the app lives, and its sockets stay
		return status, err
	}
	return status, errors.Join(err, s.close())
}

func (s *service) adoptAll(left *abandoned, files map[int]int) (err error) {
	d := left.state
	metrics := d.Host.Metrics
	d.Host.Metrics = nil
	if err := s.inheritAll(&d.handoverState, false, files); err != nil {
		return err
	}
	if metrics != nil && s.options.Metrics != nil {
		s.options.Metrics.Addr = metrics.Bound
	}
	if s.metrics, err = bindMetrics(s.options); err != nil {
		return err
	}
	s.runtime.Lock = left.dir.Lock
	begin := s.loop.begin
	s.loop.begin = func() []machine.Action {
		actions := begin()
		if r, ok := actions[0].(machine.Report); ok {
			r.Fact = machine.Adopted
			actions[0] = r
		}
		return actions
	}
	s.pidFile, err = writePIDFile(s.options.PIDFile)
	return err
}

func (s *service) greetAdopted(d *savedState) {
	if d.Machine.Current != 0 {
		s.notifier.resume(d.Machine.Current)
		return
	}
	s.notifier.begin()
}

var _ = os.Getpid
