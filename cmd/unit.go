package cmd

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/reexec"
	"github.com/gracerun/grace/supervisor/unitfile"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const unitLong = `unit prints a systemd unit that runs the given command line of grace run. The unit has few
rights, systemctl reload fails if the upgrade fails, and the app outlives a grace process
that is killed. It changes nothing on this machine.

The flags are those of grace run, and GRACE_ variables count too. The working directory
becomes --chdir, its name --name, and paths become absolute. Who runs the app:

  --user USER          grace runs as root and starts the app as USER; so does --user root
  root without --user  a user that exists only while the unit runs (DynamicUser=yes)
  another user         that user

Notes about what may not work in the unit go to stderr.

Exit status:
  0  the unit was printed
  2  the command line is wrong`

const unitExample = `  grace unit --listen :8080 -- ./app >/etc/systemd/system/app.service
  grace unit --user www-data --listen web=:80 --instances 4 -- gunicorn app:app`

func newUnit() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:     "unit [flags] -- command [argument...]",
		Short:   "Print a systemd unit for a command line of grace run",
		Long:    unitLong,
		Example: unitExample,
		RunE: func(c *cobra.Command, command []string) error {
			o, err := f.read(c.Flags(), command)
			if err != nil {
				return err
			}
			return f.printUnit(c.Flags(), o)
		},
	}
	f.add(c.Flags())
	c.Flags().SetInterspersed(false)
	c.Flags().SortFlags = false // Visit has them in the order of the command line
	return c
}

func (f *runFlags) printUnit(flags *pflag.FlagSet, o supervisor.Options) error {
	settled, err := o.Settled()
	if err != nil {
		return err
	}
	o.Options = settled
	u := unitOf{options: o, service: unitfile.Service{Name: o.Name, Grace: reexec.Program(), User: f.unitUser(), Farewell: o.Policy.Farewell > 0}}
	if o.Name == "" {
		u.service.Name = control.DefaultName()
	}
	u.uses(u.service.Grace)
	u.addFlags(flags, f.fromFile)
	u.addCommand()
	if f.commandInFile {
		u.service.Command = nil
	}
	u.addSockets()
	if _, err := fmt.Print(u.service.Text()); err != nil {
		return fmt.Errorf("cannot print the unit: %w", err)
	}
	for _, note := range u.notes {
		fmt.Fprintln(os.Stderr, clean("grace: "+note))
	}
	return nil
}

// unitUser is a name, as systemd takes numbers too, but warns of those without a name.
func (f *runFlags) unitUser() string {
	if f.user != "" || f.group != "" {
		return unitfile.Root
	}
	own, err := user.Current()
	switch {
	case os.Getuid() == 0:
		return ""
	case err != nil:
		return fmt.Sprint(os.Getuid())
	}
	return own.Username
}

// unitOf is a unit in the making.
type unitOf struct {
	options supervisor.Options
	service unitfile.Service
	notes   []string
}

// pathFlags name files that are looked for where grace is started.
var pathFlags = []string{"config", "env-file", "pid-file"}

// addFlags has the flags as they were written; files, which are read where grace is started, by their whole paths.
func (u *unitOf) addFlags(flags *pflag.FlagSet, fromFile []string) {
	u.service.Flags = [][]string{{"--chdir", u.options.Dir}}
	flags.Visit(func(f *pflag.Flag) {
		switch {
		case f.Name == "name", f.Name == "chdir":
		case slices.Contains(pathFlags, f.Name):
			path, err := filepath.Abs(f.Value.String())
			if err != nil {
				path = f.Value.String() // the working directory has gone: there is none to start from
			}
			u.uses(path)
			u.service.Flags = append(u.service.Flags, []string{"--" + f.Name, path})
		case !slices.Contains(fromFile, f.Name):
			u.service.Flags = append(u.service.Flags, written(f)...)
		}
	})
	u.uses(u.options.Dir)
}

// written is what gives a flag its value, as words of a command line.
func written(f *pflag.Flag) [][]string {
	if several, ok := f.Value.(pflag.SliceValue); ok {
		var all [][]string
		for _, value := range several.GetSlice() {
			all = append(all, []string{"--" + f.Name, value})
		}
		return all
	}
	switch {
	case f.Value.Type() == "bool" && f.Value.String() == "true":
		return [][]string{{"--" + f.Name}}
	case f.NoOptDefVal != "":
		return [][]string{{"--" + f.Name + "=" + f.Value.String()}}
	}
	return [][]string{{"--" + f.Name, f.Value.String()}}
}

// addCommand looks a bare name up, because a unit has another PATH. A relative path starts at --chdir, as everywhere.
func (u *unitOf) addCommand() {
	command := slices.Clone(u.options.Command)
	switch name := command[0]; {
	case !strings.Contains(name, "/"):
		path, err := exec.LookPath(name)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			u.note("cannot find command %q in PATH: the unit needs its whole path", name)
			break
		}
		command[0] = path
	case !filepath.IsAbs(name):
		command[0] = u.options.Dir + "/" + strings.TrimPrefix(name, "./")
	}
	if filepath.IsAbs(command[0]) {
		u.uses(command[0])
		if _, err := os.Stat(command[0]); err != nil {
			u.note("%v", err)
		}
	}
	u.service.Command = command
}

// addSockets names the directories in which grace and the app make files.
func (u *unitOf) addSockets() {
	o := u.options
	var paths []string
	for _, a := range o.Listen {
		paths = append(paths, pathOf(a)...)
	}
	if o.Metrics != nil {
		paths = append(paths, pathOf(*o.Metrics)...)
	}
	for _, path := range o.CaptureUnix {
		if !filepath.IsAbs(path) {
			path = filepath.Join(o.Dir, path)
		}
		paths = append(paths, path)
	}
	if len(paths) > 0 && u.service.User == "" {
		u.note("other users cannot reach %s in a unit with DynamicUser=yes: give --user, or have systemd hold the socket (--listen fd://NAME)", paths[0])
	}
	if o.PIDFile != "" {
		if path, err := filepath.Abs(o.PIDFile); err == nil {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		u.mayWrite(filepath.Dir(path))
	}
}

func pathOf(a socket.Address) []string {
	if !a.Unix() || strings.HasPrefix(a.Addr, "@") {
		return nil
	}
	return []string{a.Addr}
}

func (u *unitOf) mayWrite(dir string) {
	s := &u.service
	below, inRun := strings.CutPrefix(strings.Replace(dir, "/var/run/", "/run/", 1), "/run/")
	switch {
	case inRun && below == "grace/"+s.Name, slices.Contains(s.RuntimeDirs, below), slices.Contains(s.Writable, dir):
	case inRun:
		s.RuntimeDirs = append(s.RuntimeDirs, below)
	default:
		s.Writable = append(s.Writable, dir)
	}
}

// uses notes what the unit hides from grace and the app.
func (u *unitOf) uses(path string) {
	under := func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	switch {
	case under("/home"), under("/root"), under("/run/user"):
		u.service.Home = true
		if u.service.User == "" {
			u.note("%s is in a home directory, which the user of the unit may not be able to enter: give --user, or install it elsewhere", path)
		}
	case under("/tmp"), under("/var/tmp"):
		u.note("%s is hidden in the unit (PrivateTmp=yes): install it elsewhere, or change the unit", path)
	}
}

func (u *unitOf) note(format string, values ...any) {
	if text := fmt.Sprintf(format, values...); !slices.Contains(u.notes, text) {
		u.notes = append(u.notes, text)
	}
}
