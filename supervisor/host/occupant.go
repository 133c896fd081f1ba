package host

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// Many servers look into their pid file and do not start while the process in it lives: gunicorn --pid, unicorn, apache2,
// rails. Beside the generation that serves none of them could ever start.

// pidFilePlaces is where servers have their pid files if neither command nor environment names one, from the app's
// directory on.
var pidFilePlaces = []string{"*.pid", "tmp/*.pid", "tmp/pids/*.pid", "run/*.pid", "var/run/*.pid", "logs/*.pid", "/run/*.pid", "/run/*/*.pid", "/tmp/*.pid"}

// occupied says which pid file names a process of the app, for one that has ended before it was ready. Whether that is
// the reason only its output can tell, which grace does not read.
func (l *LaunchSpec) occupied(s machine.Start, pid int) string {
	for _, path := range l.pidFiles(s) {
		occupant := readPID(path)
		if occupant <= 1 || occupant == pid || occupant == os.Getpid() {
			continue
		}
		if ours, err := childproc.Descends(occupant, os.Getpid()); err == nil && ours && childproc.Living(occupant) {
			return fmt.Sprintf("the pid file %s names process %d (%s), which is still running: if the app does not start because of that, give each generation a pid file of its own (with {generation} in the name), or none",
				path, occupant, childproc.Called(occupant))
		}
	}
	return ""
}

// pidFiles are those that an instance may look into: named in its command or environment, or at one of the usual places.
func (l *LaunchSpec) pidFiles(s machine.Start) []string {
	args, env := l.filled(s)
	var paths []string
	for _, word := range args {
		_, value, _ := strings.Cut(word, "=")
		paths = append(paths, word, value)
	}
	for _, variable := range env {
		if name, value, _ := strings.Cut(variable, "="); strings.Contains(strings.ToUpper(name), "PID") {
			paths = append(paths, value)
		}
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "" })
	for i, path := range paths {
		paths[i] = within(l.Dir, path)
	}
	for _, pattern := range pidFilePlaces {
		found, _ := filepath.Glob(within(l.Dir, pattern)) // which fails for a directory with a name like a pattern
		paths = append(paths, found...)
	}
	return paths
}

// readPID gives the number that is alone in a regular file, or 0.
func readPID(path string) int {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0
	}
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
