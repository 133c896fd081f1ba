package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gracerun/grace/childproc"
)

// takeable gives the reason why a server cannot be replaced for good.
func (s server) takeable(force bool, restartOf unitRestart) error {
	if s.PID == 1 {
		return fmt.Errorf("%s has the socket, for a systemd socket unit (systemctl list-sockets): use --listen fd://NAME in the service of that unit instead", s.Holder)
	}
	if differs("net", s.PID) {
		return fmt.Errorf("%s is in another network namespace: start grace in that one (nsenter --net --target %d)", s.Holder, s.PID)
	}
	if force {
		return nil
	}
	if who := s.supervisor(restartOf); who != "" {
		return fmt.Errorf("%s: %s (--takeover=force takes over nevertheless)", s.Holder, who)
	}
	return nil
}

// differs is false where it cannot be seen.
func differs(namespace string, pid int) bool {
	own, err := os.Readlink("/proc/self/ns/" + namespace)
	theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, namespace))
	return err == nil && err2 == nil && own != theirs
}

// supervisor says who would start the server again, and what to do about it. It is empty where nobody is seen who does.
func (s server) supervisor(restartOf unitRestart) string {
	if who := containerOf(s.PID); who != "" {
		return who
	}
	if who := supervisorAbove(s.PID); who != "" {
		return who
	}
	return unitOf(s.PID, restartOf)
}

// pattern is compiled when it is used for the first time: a start that takes nothing over needs none.
func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// restarters are programs that start again what ends. Their names are those of the processes, or of scripts in their command lines.
var restarters = []struct {
	name  func() *regexp.Regexp
	about string
}{
	{pattern(`^PM2 |(^|/)pm2(-runtime)?($| )`), "pm2 will start it again: use --takeover=force, and run `pm2 delete NAME` when generation 0 has ended"},
	{pattern(`(^|/)supervisord($| )`), "supervisord will start it again: use --takeover=force, and run `supervisorctl stop NAME` when generation 0 has ended"},
	{pattern(`^(runsv|s6-supervise|supervise) `), "%s will start it again: run `sv once NAME` (runit), `s6-svc -o NAME` (s6) or `svc -o NAME` (daemontools)"},
	{pattern(`(^|/)grace run `), "another grace process runs it: use `grace upgrade` there, or `grace release`"},
	{pattern(`^docker-proxy |/docker-proxy `), "Docker publishes a container's port by it: stop the container"},
	{pattern(`(^|/)(nodemon|forever|circusd|god|monit|dockerd|containerd-shim\S*)($| )`), "%s will start it again: keep that from it"},
}

// supervisorAbove begins with the server itself: some supervisors have the sockets too. In a container process 1 may be one.
func supervisorAbove(pid int) string {
	known := programOf(pid)
	for above := pid; above > 0; {
		if about := restarter(strings.Join(childproc.Arguments(above), " ")+" ", above); about != "" {
			return known.in(about)
		}
		parent, err := childproc.Parent(above)
		if err != nil {
			return ""
		}
		if parent > 1 && known.about != "" && programOf(parent).about == "" {
			return known.in(known.about) // whatever the command line of the supervisor is
		}
		above = parent
	}
	return ""
}

// supervised is what a supervisor has told a program in its environment. Who started that may have handed it on.
type supervised struct{ about, name string }

func (s supervised) in(about string) string {
	if s.name == "" {
		return about
	}
	return strings.Replace(about, " NAME`", " "+s.name+"`", 1)
}

// programOf is empty for a program that was told nothing. supervisord sets SUPERVISOR_ENABLED (supervisor/process.py), pm2 sets pm_id
// (lib/God.js).
func programOf(pid int) (s supervised) {
	env, _ := childproc.Environment(pid) // of another user it is not known
	told := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		told[name] = value
	}
	switch {
	case told["SUPERVISOR_ENABLED"] != "":
		s.about, s.name = restarter("supervisord ", 0), told["SUPERVISOR_PROCESS_NAME"]
		if group := told["SUPERVISOR_GROUP_NAME"]; group != "" && group != s.name {
			s.name = group + ":" + s.name
		}
	case told["pm_id"] != "" && told["PM2_HOME"] != "":
		s.about, s.name = restarter("pm2 ", 0), told["pm_id"]
	}
	if !shellWord().MatchString(s.name) {
		s.name = ""
	}
	return s
}

// shellWord is what can be shown in a command: others choose the name.
var shellWord = pattern(`^[A-Za-z0-9_.:-]*$`)

func restarter(line string, pid int) string {
	for _, r := range restarters {
		if r.name().MatchString(line) {
			name := fmt.Sprintf("%s (pid %d)", filepath.Base(strings.Fields(line)[0]), pid)
			return strings.Replace(r.about, "%s", name, 1)
		}
	}
	return ""
}

// containers are in the names of the control groups that container engines make.
var containers = pattern(`(docker|libpod|crio|containerd|kubepods|lxc)[-./:_]`)

// containerOf asks for the PID namespace too: grace may be in a container itself.
func containerOf(pid int) string {
	group := controlGroup(pid)
	if !differs("pid", pid) || !containers().MatchString(group) {
		return ""
	}
	return fmt.Sprintf("it runs in a container (control group %s), whose engine would end or restart the container: stop the container", group)
}

// controlGroup is the path in the unified hierarchy, or that of systemd: one of them may be unused.
func controlGroup(pid int) (group string) {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	for line := range bytes.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(fields) == 3 && (fields[1] == "" || fields[1] == "name=systemd") && len(fields[2]) > len(group) {
			group = fields[2]
		}
	}
	return group
}

// unitRestart asks systemd for the Restart= of a unit.
type unitRestart func(u unit) (string, error)

// unit is a service of the system's systemd, or of a user's.
type unit struct{ name, user string }

// ServiceOf is the systemd service of a process, and empty where it is in none.
func ServiceOf(pid int) string { return unitIn(controlGroup(pid)).name }

var userUnit = pattern(`/user@([0-9]+)\.service/`)

// unitIn gives an empty name where the control group is not that of a service.
func unitIn(group string) unit {
	name := path.Base(group)
	if !strings.HasSuffix(name, ".service") || strings.HasPrefix(name, "user@") {
		return unit{}
	}
	if user := userUnit().FindStringSubmatch(group); user != nil {
		return unit{name, user[1]}
	}
	return unit{name: name}
}

// showRestart is the command that prints it.
func (u unit) showRestart() []string {
	words := []string{"systemctl"}
	if u.user != "" {
		words = append(words, "--user", "--machine="+u.user+"@")
	}
	return append(words, "show", "--property=Restart", "--value", "--", u.name)
}

// remedy has the unit not started again. A drop-in of the running system is gone at its next boot.
func (u unit) remedy() string {
	systemctl, dropIn := "systemctl", "/run/systemd/system/"+u.name+".d"
	if u.user != "" {
		systemctl, dropIn = "systemctl --user", "/run/user/"+u.user+"/systemd/user/"+u.name+".d"
	}
	return fmt.Sprintf("%[1]s disable %[2]s && mkdir -p %[3]s && printf '[Service]\\nRestart=no\\n' >%[3]s/no-restart.conf && %[1]s daemon-reload", systemctl, u.name, dropIn)
}

// restartByCommand is for a process that does not reap what it has not started itself.
func restartByCommand(u unit) (string, error) {
	words := u.showRestart()
	output, err := exec.Command(words[0], words[1:]...).Output()
	return string(output), err
}

// restartPatience is for a systemd that does not answer.
const restartPatience = 5 * time.Second

// restartOf has the reaper start the command, which would take the end of another child for that of an orphan.
func (t *Takeover) restartOf(u unit) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), restartPatience)
	defer cancel()
	l := &LaunchSpec{Env: os.Environ(), umask: -1}
	l.Dir = "/"
	spec := l.shell(`exec "$@"`)
	spec.Args = append(spec.Args, "sh")
	spec.Args = append(spec.Args, u.showRestart()...)
	output, exit, err := t.reaper.Output(ctx, spec, checkOutput)
	if err == nil && exit.Status() != 0 {
		err = errors.New("systemctl has failed")
	}
	return string(output), err
}

// unitOf: a service that does not start again what ends by its stop signal is none to fear. One that cannot be asked about is.
func unitOf(pid int, restartOf unitRestart) string {
	u := unitIn(controlGroup(pid))
	if u.name == "" || sameUnit(pid) {
		return ""
	}
	restart, err := restartOf(u)
	if err == nil && !slices.Contains([]string{"always", "on-success"}, strings.TrimSpace(restart)) {
		return ""
	}
	return fmt.Sprintf("systemd unit %s will start it again: run %s first", u.name, u.remedy())
}

// sameUnit is for who starts grace in the unit of the server, as from a terminal in a container.
func sameUnit(pid int) bool { return controlGroup(pid) == controlGroup(os.Getpid()) }
