package host

import (
	"slices"
	"strings"
	"testing"
)

func TestSupervisorsAreKnownByTheirCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"PM2 v5.3.0: God Daemon (/root/.pm2) ":                               "pm2 will start it again",
		"/usr/bin/python3 /usr/bin/supervisord -n -c /etc/supervisord.conf ": "supervisord will start it again",
		"runsv web ": "runsv (pid 7) will start it again",
		"/usr/local/bin/grace run --name web -- ./app ":                      "another grace process runs it",
		"/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 ": "Docker publishes a container's port by it",
		"node /usr/bin/nodemon app.js ":                                      "node (pid 7) will start it again",
		"bash ":                                                              "", "/sbin/init ": "", "./server --name supervisor ": "", "vi grace run.txt ": "",
	} {
		got := restarter(line, 7)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestUnitsAreKnownByTheirControlGroups(t *testing.T) {
	for group, want := range map[string]struct {
		unit unit
		asks []string
	}{
		"/system.slice/old.service":                                         {unit{"old.service", ""}, []string{"systemctl", "show"}},
		"/../system.slice/system-web.slice/web@1.service":                   {unit{"web@1.service", ""}, []string{"systemctl", "show"}},
		"/user.slice/user-7.slice/user@7.service/app.slice/old.service":     {unit{"old.service", "7"}, []string{"systemctl", "--user", "--machine=7@", "show"}},
		"/user.slice/user-7.slice/user@7.service/app.slice/app-shell.scope": {},
		"/user.slice/user-7.slice/session-2.scope":                          {},
		"/user.slice/user-7.slice/user@7.service":                           {},
		"/": {},
		"":  {},
	} {
		u := unitIn(group)
		if u != want.unit || want.asks != nil && !slices.Equal(u.showRestart()[:len(want.asks)], want.asks) {
			t.Errorf("%s: %+v, asked by %q", group, u, u.showRestart())
		}
	}
}
