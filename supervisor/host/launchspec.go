package host

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/supervisor/machine"
)

// LaunchSpec is what a generation resolved when it was made. All its starts, a crash
// restart too, use it: a link that was moved in between must not bring in code
// that no upgrade has checked.
type LaunchSpec struct {
	machine.LaunchSpec
	Program  Program
	Env      []string
	fromFile int // so many of the last in env are from the environment file
	Identity *childproc.Identity
	umask    int
	stays    string // why it may not run where it was meant to
}

// launchError is a command that cannot be resolved, with grace's exit status for it.
type launchError struct {
	status int
	text   string
}

func (e *launchError) Error() string { return e.text }

// Resolve looks up what is to be started. The caller, or the Host that has the launch, closes its Program.
func Resolve(o Options) (*LaunchSpec, error) { return resolveAnew(o, nil) }

func resolveCommand(o Options) (*LaunchSpec, error) {
	l, err := surroundings(o)
	if err != nil {
		return nil, err
	}
	if l.Path, err = find(o.Command[0], o.Dir, l.variable("PATH")); err != nil {
		return nil, err
	}
	if l.Executable, err = filepath.EvalSymlinks(l.Path); err != nil {
		return nil, err
	}
	l.Program, l.File, err = openProgram(l.Executable)
	return l, err
}

// resolveOrder does it for one generation, whose command may be a new one or one
// that ran before. kept is the executable of that, and belongs to the launch then.
func resolveOrder(o Options, order machine.Prepare, kept Program) (*LaunchSpec, error) {
	if order.Command != nil {
		o.Command = order.Command
	}
	if order.Again == nil {
		return resolveAnew(o, order.Current)
	}
	if err := possible(*order.Again, kept); err != nil {
		return nil, err
	}
	o.Dir = order.Again.Dir
	l, err := surroundings(o)
	if err != nil {
		return nil, err
	}
	l.Path, l.Executable, l.File, l.Program = order.Again.Path, order.Again.Executable, order.Again.File, kept
	if kept == 0 {
		l.Program, _, err = openProgram(l.Executable)
	}
	return l, err
}

func resolveAnew(o Options, current *machine.LaunchSpec) (*LaunchSpec, error) {
	l, err := resolveCommand(o)
	if err != nil {
		return nil, err
	}
	if err := l.heedLinks(current); err != nil {
		l.Program.Close()
		return nil, err
	}
	if o.unnamed {
		l.Links = linksTo(l.Dir)
	}
	return l, nil
}

// surroundings is all of a launch but the executable.
func surroundings(o Options) (*LaunchSpec, error) {
	l := &LaunchSpec{LaunchSpec: machine.LaunchSpec{Command: o.Command}, umask: o.Umask}
	var err error
	if l.Dir, err = filepath.EvalSymlinks(o.Dir); err != nil {
		return nil, fmt.Errorf("cannot enter directory %s (--chdir): %w", o.Dir, err)
	}
	l.Env = append(handoff.CleanEnv(os.Environ()), "PWD="+o.Dir)
	if err := l.addIdentity(o.User, o.Group); err != nil {
		return nil, err
	}
	return l, l.addEnvFile(o.EnvFile)
}

func (l *LaunchSpec) addEnvFile(path string) error {
	if path == "" {
		return nil
	}
	text, err := readEnvFile(path)
	if err != nil {
		return fmt.Errorf("cannot read --env-file: %w", err)
	}
	env, err := parseEnvFile(string(text))
	if err != nil {
		return fmt.Errorf("cannot read --env-file %s: %w", path, err)
	}
	l.Env, l.fromFile = append(l.Env, env...), len(env)
	return nil
}

// variable gives a variable as the app will see it: what comes later wins.
func (l *LaunchSpec) variable(name string) string {
	for i := len(l.Env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(l.Env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// executable is the path as it was resolved, unless a link on it leads somewhere
// else by now: then it is the file that it led to.
func (l *LaunchSpec) executable() string {
	if now, err := filepath.EvalSymlinks(l.Path); err == nil && now == l.Executable {
		return l.Path
	}
	return l.Executable
}

// spec is the part of a start that all instances of a generation share.
func (l *LaunchSpec) spec() childproc.Spec {
	return childproc.Spec{
		Path: l.executable(), Args: l.Command, Dir: l.Dir, Env: unique(l.Env),
		Stdin: -1, Stdout: 1, Stderr: 2,
		Umask: l.umask, Identity: l.Identity,
	}
}

// shell is a command line run beside the app, as the app's user and with its
// environment.
func (l *LaunchSpec) shell(line string) childproc.Spec {
	spec := l.spec()
	spec.Path, spec.Args = "/bin/sh", []string{"sh", "-c", line}
	return spec
}

// unique keeps the last value of each variable: programs differ in which one of
// two they take.
func unique(env []string) []string {
	last := map[string]int{}
	for i, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		last[name] = i
	}
	var kept []string
	for i, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if last[name] == i {
			kept = append(kept, entry)
		}
	}
	return kept
}

// find looks a command up as a shell does, from the app's directory and with the
// app's PATH.
func find(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		return executableAt(within(dir, name))
	}
	var found error
	for _, folder := range filepath.SplitList(path) {
		file, err := executableAt(filepath.Join(within(dir, folder), name))
		if err == nil {
			return file, nil
		}
		if e, ok := err.(*launchError); ok && e.status == 126 {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", &launchError{127, fmt.Sprintf("cannot find command %q in PATH (give its path, or set PATH)", name)}
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func executableAt(path string) (string, error) {
	file, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return "", &launchError{127, fmt.Sprintf("cannot find command %s", path)}
	case err != nil:
		return "", &launchError{126, fmt.Sprintf("cannot run %s: %v", path, err)}
	case file.IsDir():
		return "", &launchError{126, fmt.Sprintf("cannot run %s: it is a directory", path)}
	case file.Mode()&0o111 == 0 || file.Mode()&fs.ModeType != 0:
		return "", &launchError{126, fmt.Sprintf("cannot run %s: it is not an executable file (chmod +x it)", path)}
	}
	return path, nil
}
