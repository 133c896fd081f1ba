package operate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// jealous is a server that does not start while the process in its pid file lives, which is $1; or $PIDFILE. It ends with
// status 0 then, as apache2 does.
const jealous = `#!/bin/sh
file=${1:-$PIDFILE}
if [ -f "$file" ] && kill -0 "$(cat "$file")"; then exit 0; fi
echo $$ >"$file"
exec %s
`

// TestPidFileOfTheApp: what blocks each upgrade is named, and the way out works.
func TestPidFileOfTheApp(t *testing.T) {
	for name, c := range map[string]struct {
		argument, env, file string // what names the file, and its name
	}{
		"in the command":     {argument: "%s/some", file: "some"},
		"in the environment": {env: "PIDFILE=%s/other", file: "other"},
		"at a usual place":   {argument: "tmp/pids/server.pid", file: "tmp/pids/server.pid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "tmp/pids"), 0o755); err != nil {
				t.Fatal(err)
			}
			at := func(text string) string { return strings.Replace(text, "%s", dir, 1) }
			script := harness.Write(t, dir, "run", fmt.Sprintf(jealous, harness.AppBinary()), 0o755)
			s := harness.StartWith(t, func(c *exec.Cmd) {}, "--chdir", dir, "--env-file", harness.Write(t, dir, "env", at(c.env), 0o644),
				"--listen", "web=127.0.0.1:0", "--", "/bin/sh", script, at(c.argument))
			s.AwaitReady(1)
			s.Signal(syscall.SIGHUP)
			e := s.AwaitGeneration("upgrade failed, generation 1 still serves", 2)
			if !strings.Contains(e.Why, "the pid file "+filepath.Join(dir, c.file)+" names process ") || !strings.Contains(e.Why, "{generation}") {
				t.Errorf("the reason is %q", e.Why)
			}
			s.Stop()
		})
	}
}

func TestPidFileOfEachGeneration(t *testing.T) {
	dir := t.TempDir()
	script := harness.Write(t, dir, "run", fmt.Sprintf(jealous, harness.AppBinary()), 0o755)
	env := harness.Write(t, dir, "env", "PIDFILE="+dir+"/{generation}.{instance}.pid\n", 0o644)
	s := harness.Start(t, "--instances", "2", "--env-file", env, "--listen", "web=127.0.0.1:0", "--", script)
	s.AwaitReady(1)
	s.Upgrade(2)
	s.Upgrade(3)
	for _, name := range []string{"1.0", "1.1", "2.0", "2.1", "3.0", "3.1"} {
		if _, err := os.Stat(filepath.Join(dir, name+".pid")); err != nil {
			t.Error(err)
		}
	}
	s.Stop()
}
