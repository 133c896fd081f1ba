package host

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

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
			short := strings.TrimPrefix(unix.SignalName(want), "SIG")
			return fmt.Sprintf("%s finishes its requests on %s; with %s it may cut them (use --stop-signal %s)",
				program, short, strings.TrimPrefix(unix.SignalName(o.Policy.StopSignal), "SIG"), short)
		}
	}
	return ""
}

// isProgram takes versions in a name, as in php-fpm8.2.
func isProgram(program, name string) bool {
	return strings.TrimRight(program, "0123456789.") == name
}
