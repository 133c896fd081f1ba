package host

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// graceful are the signals on which a program finishes its requests, where TERM
// cuts them. Sources: nginx.org/en/docs/control.html, php-fpm(8), the HAProxy
// Management Guide, httpd.apache.org/docs/current/stopping.html, lighttpd's doc/initscripts.txt.
var graceful = map[string]syscall.Signal{
	"nginx":     syscall.SIGQUIT,
	"openresty": syscall.SIGQUIT,
	"php-fpm":   syscall.SIGQUIT,
	"haproxy":   syscall.SIGUSR1,
	"httpd":     syscall.SIGWINCH,
	"apache2":   syscall.SIGWINCH,
	"unicorn":   syscall.SIGQUIT,
	"lighttpd":  syscall.SIGINT,
}

func StopSignalHint(o Options) string {
	program := filepath.Base(o.Command[0])
	for name, want := range graceful {
		if isProgram(program, name) && want != o.Policy.StopSignal {
			short := shortName(want)
			return fmt.Sprintf("%s finishes its requests on %s; with %s it may cut them (use --stop-signal %s)",
				program, short, shortName(o.Policy.StopSignal), short)
		}
	}
	return ""
}

// handlerTime is how long after it serves an app may install its handlers: some do so only then.
const handlerTime = 2 * time.Second

// examineStopSignal tells once of an app that its stop signal ends, and that shares its queue with its successor: until then it accepts
// connections, so nothing can wait for what it is answering.
func (a *Host) examineStopSignal(app *InstanceProcess) {
	if !a.Options.shares() || SharedSocketHint(a.Options) != "" || pause(app.ctx, handlerTime) != nil {
		return
	}
	pids, err := a.Reaper.Tree(app.mainPID())
	survives, err2 := childproc.Survives(pids, a.Options.Policy.StopSignal)
	if survives || errors.Join(err, err2) != nil || app.ctx.Err() != nil {
		return // it may have ended
	}
	short := shortName(a.Options.Policy.StopSignal)
	a.fragile.Do(func() {
		a.Post(machine.Noticed{Text: fmt.Sprintf("the app has no handler for %s, which ends it at once", short),
			Why: fmt.Sprintf("an upgrade cuts what it is answering by then (let it finish its requests on %s, or use --listen ADDR?steer=true, or leave --listen out)", short)})
	})
}

// shortName is as flags have it: TERM, and 40 for a signal that has no name.
func shortName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// isProgram takes versions in a name, as in php-fpm8.2.
func isProgram(program, name string) bool {
	return strings.TrimRight(program, "0123456789.") == name
}
