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
	options  Options
	limit    time.Duration // of each patient's life
	place    place
	identity *childproc.Identity
	family   *childproc.Family
	findings []Finding
}

// Examine tries everything. It starts processes, makes this one the reaper of their
// orphans, and is to be called once in a process.
func Examine(o Options) Report {
	e := &examination{options: o, limit: limit, place: seePlace()}
	e.add(kernel(), pidfd())
	if e.prepare() && e.hold() {
		e.capture()
	}
	e.add(steering(), migration(), e.openFiles(), pidOne(), e.keeper())
	return newReport(e.findings)
}

func (e *examination) add(findings ...Finding) { e.findings = append(e.findings, findings...) }

func kernel() Finding {
	f := Finding{Mechanism: "kernel", State: OK, serves: holding}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		f.State, f.Means = Missing, "the kernel does not say what it is: "+err.Error()
		return f
	}
	f.Means = fmt.Sprintf("Linux %s on %s", unix.ByteSliceToString(name.Release[:]), runtime.GOARCH)
	return f
}

func pidfd() Finding {
	f := Finding{Mechanism: "pidfd", State: OK, serves: holding, Means: "signals reach the process they are for, whatever becomes of its number"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.PidfdSendSignal(fd, 0, nil, 0)
	}
	if err != nil {
		f.State = Missing
		f.Means = "grace cannot hold on to a process, and does nothing without that: " + err.Error()
		f.Do = "use Linux 5.4 or newer; in a container, allow pidfd_open and pidfd_send_signal in its seccomp profile"
	}
	return f
}

// prepare reports whether an app can be started at all.
func (e *examination) prepare() bool {
	f := Finding{Mechanism: "orphans", State: OK, serves: holding, Means: "what an app leaves behind comes to grace, which reaps it (subreaper)"}
	var err error
	if e.family, err = childproc.NewFamily(); err != nil {
		f.State, f.Means = Missing, err.Error()
		f.Do = "use Linux 3.4 or newer; in a container, allow prctl in its seccomp profile"
	}
	e.add(f)
	if err != nil {
		return false
	}
	if e.identity, err = host.FindIdentity(e.options.User, e.options.Group); err != nil {
		e.add(Finding{Mechanism: "app's user", State: Missing, serves: holding, Means: err.Error(), Do: "make the user, or give another --user or --group"})
	}
	return err == nil
}

const asRoot = "start grace as root with CAP_CHOWN, CAP_SETUID and CAP_SETGID, or without --user and --group"

// failedToStart is what a patient's death means.
func (e *examination) failedToStart(err error) Finding {
	f := Finding{Mechanism: "starting an app", State: Missing, serves: holding, Means: err.Error()}
	var start *childproc.StartError
	switch {
	case !errors.As(err, &start):
		f.Do = "see what was said on stderr"
	case start.Step == "exec" && start.Errno == unix.EACCES:
		f.State = Limited
		f.Means = "nothing could be tried as the app's user, who may not execute grace's own file"
		f.Do = "chmod a+x on grace's file, or try another --user"
	case start.Step == "setgroups" || start.Step == "setgid" || start.Step == "setuid":
		f.Do = asRoot
	case start.Step == "fork" && errors.Is(start, os.ErrNotExist):
		f.Do = "mount /proc: grace starts every app by way of /proc/self/exe"
	}
	return f
}
