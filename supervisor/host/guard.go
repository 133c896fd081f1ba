package host

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// Guard is how each goroutine begins that works for one instance or generation: a
// panic in it, which something unforeseen in an app has led to, ends that work and not
// grace. broken is told why, and does what has to be done without it. The loop's own
// panics are grace's, and end it.
func Guard(work func(), broken func(why string)) func() {
	return func() {
		if err := guarded(work); err != nil {
			broken(err.Error())
		}
	}
}

// guarded gives a panic as an error.
func guarded(work func()) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("internal error, please report it: %v (%s)", cause, origin())
		}
	}()
	work()
	return nil
}

const ownCode = "github.com/gracerun/grace/"

// origin is where the panic that is being recovered from began.
func origin() string {
	calls := make([]uintptr, 64)
	frames := runtime.CallersFrames(calls[:runtime.Callers(0, calls)])
	for panicked := false; ; {
		frame, more := frames.Next()
		if panicked && strings.HasPrefix(frame.Function, ownCode) {
			return fmt.Sprintf("%s, %s:%d", filepath.Base(frame.Function), filepath.Base(frame.File), frame.Line)
		}
		panicked = panicked || frame.Function == "runtime.gopanic"
		if !more {
			return "unknown place"
		}
	}
}

// Notice is what there is to do where nothing depends on the work.
func (a *Host) Notice(text string) func(why string) {
	return func(why string) { a.Post(machine.Noticed{Text: text, Why: why}) }
}

// kill ends what was started of an instance that never came to be one.
func (a *InstanceProcess) kill() error {
	var errs []error
	for _, p := range a.processes {
		errs = append(errs, p.SignalGroup(syscall.SIGKILL))
		_, err := p.Wait()
		errs = append(errs, err, p.EndRest())
	}
	return errors.Join(errs...)
}

// loseSight is for a process that cannot be watched any more: it is ended, as grace
// would never learn of its end.
func (a *Host) loseSight(app *InstanceProcess, p *childproc.Process, why string) {
	a.Post(machine.Noticed{Text: fmt.Sprintf("cannot watch instance %d, killing it", app.start.Instance), Why: why})
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		a.Post(machine.Noticed{Text: fmt.Sprintf("cannot kill instance %d", app.start.Instance), Why: err.Error()})
	}
	exit := childproc.Exit{Unknown: true}
	if err := guarded(func() { exit, _ = p.Wait() }); err != nil {
		a.Post(machine.Noticed{Text: fmt.Sprintf("cannot wait for instance %d", app.start.Instance), Why: err.Error()})
	}
	a.Post(machine.Exited{Instance: app.start.Instance, PID: p.PID, Exit: exitOf(exit)})
	err := guarded(func() {
		a.ReportError("cannot kill what the app left behind", a.insist(app, "cannot kill what the app left behind yet, trying again", p.KillRest))
		a.awaitRest(app, p)
	})
	if err != nil {
		a.Post(machine.Noticed{Text: "cannot end what the app left behind", Why: err.Error()})
	}
	a.Post(machine.Emptied{Instance: app.start.Instance, PID: p.PID})
}
