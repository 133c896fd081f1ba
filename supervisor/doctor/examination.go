package doctor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/host"
	"golang.org/x/sys/unix"
)

// examination is one run of the doctor.
type examination struct {
	options Options
	limit   time.Duration // of each test app's life
	environment
	identity *childproc.Identity
	family   *childproc.Reaper
	findings []Finding

	duplicated error // why grace may not have the connections of a test app
}

// Examine tries everything. It starts processes, makes this one the reaper of their
// orphans, and is to be called once in a process.
func Examine(o Options) Report {
	e := &examination{options: o, limit: limit, environment: detectEnvironment()}
	e.add(kernel(), pidfd())
	if e.prepare() && e.checkHeld() {
		e.checkCapture()
	}
	e.add(steering(), migration(), e.leaving(e.duplicated), e.openFiles(), pidOne(), e.serviceManager())
	return newReport(e.findings)
}

func (e *examination) add(findings ...Finding) { e.findings = append(e.findings, findings...) }

func kernel() Finding {
	f := Finding{Mechanism: "kernel", State: OK, serves: holding}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		f.State, f.Means = Missing, "cannot read the kernel's version: "+err.Error()
		return f
	}
	f.Means = fmt.Sprintf("Linux %s on %s", unix.ByteSliceToString(name.Release[:]), runtime.GOARCH)
	return f
}

func pidfd() Finding {
	f := Finding{Mechanism: "pidfd", State: OK, serves: holding, Means: "signals reach the right process even if its pid is reused"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.PidfdSendSignal(fd, 0, nil, 0)
	}
	if err != nil {
		f.State = Missing
		f.Means = "grace cannot hold a reference to a process, which it always needs: " + err.Error()
		f.Do = "use Linux 5.4 or newer; in a container, allow pidfd_open and pidfd_send_signal in its seccomp profile"
	}
	return f
}

// prepare reports whether an app can be started at all.
func (e *examination) prepare() bool {
	f := Finding{Mechanism: "orphans", State: OK, serves: holding, Means: "grace adopts and reaps the processes that an app leaves behind (subreaper)"}
	var err error
	if e.family, err = childproc.NewReaper(); err != nil {
		f.State, f.Means = Missing, err.Error()
		f.Do = "use Linux 3.4 or newer; in a container, allow prctl in its seccomp profile"
	}
	e.add(f)
	if err != nil {
		return false
	}
	if e.identity, err = host.FindIdentity(e.options.User, e.options.Group); err != nil {
		e.add(Finding{Mechanism: "app's user", State: Missing, serves: holding, Means: err.Error(), Do: "create the user, or use another --user or --group"})
	}
	return err == nil
}

const asRoot = "start grace as root with CAP_CHOWN, CAP_SETUID and CAP_SETGID, or without --user and --group"

// failedToStart says why a test app could not be started.
func (e *examination) failedToStart(err error) Finding {
	f := Finding{Mechanism: "starting an app", State: Missing, serves: holding, Means: err.Error()}
	var start *childproc.StartError
	switch {
	case !errors.As(err, &start):
		f.Do = "read the messages on stderr"
	case start.Step == "exec" && start.Errno == unix.EACCES:
		f.State = Limited
		f.Means = "nothing could be tested as the app's user, because this user may not execute grace's file"
		f.Do = "run chmod a+x on grace's file, or use another --user"
	case start.Step == "setgroups" || start.Step == "setgid" || start.Step == "setuid":
		f.Do = asRoot
	case start.Step == "fork" && errors.Is(start, os.ErrNotExist):
		f.Do = "mount /proc: grace starts every app through /proc/self/exe"
	}
	return f
}
