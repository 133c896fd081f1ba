package host

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
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

// Whatever their command lines are, and however many wrappers there are between them and the server.
func TestSupervisorsAreKnownByTheEnvironment(t *testing.T) {
	for _, test := range []struct {
		env  []string
		want string
	}{
		{[]string{"SUPERVISOR_ENABLED=1", "SUPERVISOR_GROUP_NAME=web", "SUPERVISOR_PROCESS_NAME=web_00"}, "run `supervisorctl stop web:web_00` when"},
		{[]string{"SUPERVISOR_ENABLED=1", "SUPERVISOR_GROUP_NAME=web", "SUPERVISOR_PROCESS_NAME=web"}, "run `supervisorctl stop web` when"},
		{[]string{"SUPERVISOR_ENABLED=1", "SUPERVISOR_PROCESS_NAME=`x`"}, "run `supervisorctl stop NAME` when"},
		{[]string{"pm_id=3", "PM2_HOME=/root/.pm2"}, "run `pm2 delete 3` when"},
		{[]string{"pm_id=3"}, ""},
		{nil, ""},
	} {
		cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SUPERVISOR_") || strings.HasPrefix(v, "pm_id=") }), test.env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			t.Fatal(err)
		}
		awaitEnvironment(t, pid, "sleep")
		if got := supervisorAbove(pid); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%q: %q", test.env, got)
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}
}

// awaitEnvironment waits until a process is the program: while it is being executed its environment is empty (begin_new_exec in
// fs/exec.c).
func awaitEnvironment(t *testing.T, pid int, program string) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.TrimSpace(string(name)) == program && len(env) > 0 {
			return
		}
	}
	t.Fatalf("process %d does not become %s", pid, program)
}
