package recipes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// start runs a command of a page in dir as a shell would.
func start(t *testing.T, dir, command string, environment ...string) *harness.Grace {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "exec "+command)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "PATH="+dir+"/bin:"+searchPath()), environment...)
	g := harness.StartCommand(t, cmd)
	g.Patience = patience
	return g
}

// searchPath is PATH with the directories that Debian keeps from ordinary users.
func searchPath() string { return os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin" }

// find returns a program, which may have a version in its name, as in php-fpm8.2.
func find(program string) (path string) {
	for _, dir := range filepath.SplitList(searchPath()) {
		found, _ := filepath.Glob(filepath.Join(dir, program) + "*")
		for _, path := range found {
			if name := filepath.Base(path); name == program || strings.TrimRight(name, "0123456789.") == program {
				return path
			}
		}
	}
	return ""
}
