package handoff

import (
	"slices"
	"testing"
)

func TestCleanEnv(t *testing.T) {
	kept := []string{
		"PATH=/bin", "LISTEN=1", "LISTEN_FDS_X=1", "NGINX_HOME=/", "FPM_SOCKETSX=1", "GRACEFUL=1", "WATCHDOG_LOG=1", "EMPTY=", "odd",
		"PATH=/LISTEN_FDS=1",
	}
	removed := []string{
		"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_PIDFDID=1", "LISTEN_FDNAMES=a", "SERVER_STARTER_PORT=1=3", "SERVER_STARTER_GENERATION=1",
		"EINHORN_MASTER_PID=1", "EINHORN_FD_COUNT=1", "EINHORN_FD_0=3", "EINHORN_FDS=3", "EINHORN_SOCK_PATH=/", "NGINX=3;",
		"FPM_SOCKETS=/=3", "FPM_SOCKETS_1=/=4", "TABLEFLIP_HAS_PARENT_7DIU3=yes", "GRACE_NAME=x", "NOTIFY_SOCKET=/",
		"WATCHDOG_PID=1", "WATCHDOG_USEC=1", "FDSTORE=1", "LISTEN_FDS",
	}
	var environ []string
	for i := range max(len(kept), len(removed)) {
		environ = append(environ, removed[min(i, len(removed)-1)])
		if i < len(kept) {
			environ = append(environ, kept[i])
		}
	}
	before := slices.Clone(environ)
	if got := CleanEnv(environ); !slices.Equal(got, kept) {
		t.Errorf("got  %q\nwant %q", got, kept)
	}
	if !slices.Equal(environ, before) {
		t.Error("the given environment was changed")
	}
}
