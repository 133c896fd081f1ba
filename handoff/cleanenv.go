package handoff

import (
	"slices"
	"strings"
)

// variables are those of every convention, grace's own, and those by which a service manager speaks to a supervisor. A * at
// the end stands for any ending.
var variables = []string{
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES",
	"SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION",
	"EINHORN_*",
	"NGINX",
	"FPM_SOCKETS", "FPM_SOCKETS_*",
	"TABLEFLIP_*",
	"GRACE_*",
	"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE",
}

// CleanEnv returns a copy of environ without the variables by which a supervisor tells an app of its sockets and hears from
// it. It is for the environment of programs that the app starts: a server among them would take the variables as meant for it.
func CleanEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.ContainsFunc(variables, func(pattern string) bool { return matches(pattern, name) })
	})
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
