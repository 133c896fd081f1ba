package harness

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/requirement"
)

// Container is a grace process that is PID 1 of a runc container. Its file system is
// read-only and empty but for three static programs, and it shares the network with
// the clients. runc passes the signals that it gets on to PID 1, and ends with
// its status.
type Container struct {
	*Grace
	T     *testing.T
	Name  string
	State string // the folder in which runc keeps what it knows
}

// Spec is runc's config.json.
type Spec map[string]any

func (c Spec) At(key string) Spec { return c[key].(map[string]any) }

func (c Spec) Mount(destination, kind, source string, options ...string) {
	c["mounts"] = append(c["mounts"].([]any), Spec{"destination": destination, "type": kind, "source": source, "options": options})
}

// StartContainer runs grace in a container that was changed from what `runc spec` says.
// The thread is locked to the test, for Pdeathsig looks at the thread (prctl(2)).
func StartContainer(t *testing.T, change func(Spec), arguments ...string) *Container {
	t.Helper()
	requirement.Check(t, "runc", MayContain())
	c := &Container{T: t, Name: "grace-test-" + rand.Text(), State: t.TempDir()}
	t.Cleanup(c.CheckRemoved)
	runtime.LockOSThread()
	c.Grace = StartWith(t, func(cmd *exec.Cmd) {
		bundle := MakeBundle(t, func(spec Spec) {
			spec.At("process")["args"] = append([]string{"/grace"}, cmd.Args[1:]...)
			spec.At("linux")["cgroupsPath"] = "/" + c.Name
			change(spec)
		})
		runc := c.Runc("run", "--bundle", bundle, c.Name)
		cmd.Path, cmd.Args = runc.Path, runc.Args
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	}, arguments...)
	c.Contained = true
	return c
}

func MayContain() error {
	if _, err := exec.LookPath("runc"); err != nil {
		return err
	}
	try := exec.Command("/bin/true")
	try.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if err := try.Run(); err != nil {
		return fmt.Errorf("cannot make namespaces (root can): %w", err)
	}
	return nil
}

func (c *Container) Runc(args ...string) *exec.Cmd {
	return exec.Command("runc", append([]string{"--root", c.State}, args...)...)
}

// Do runs runc on the container and gives all that it printed.
func (c *Container) Do(args ...string) string {
	c.T.Helper()
	out, err := c.Runc(args...).CombinedOutput()
	if err != nil {
		c.T.Fatalf("runc %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// CheckRemoved wants nothing of a container that has ended.
func (c *Container) CheckRemoved() {
	if left := c.Do("list", "--quiet"); left != "" {
		c.T.Errorf("a container is left: %s", left)
		c.Do("delete", "--force", c.Name)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, err := filepath.Glob(pattern + c.Name); err != nil || left != nil {
			c.T.Errorf("cgroups are left: %v, %v", left, err)
		}
	}
}

// MakeBundle makes a root folder and runc's config.
func MakeBundle(t *testing.T, change func(Spec)) string {
	t.Helper()
	programs := StaticPrograms()
	bundle := t.TempDir()
	root := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "lib", "lib64"} { // which lead to nothing without the host's /usr
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	spec := readSpec(t, bundle)
	spec.At("process")["terminal"] = false
	spec.At("linux")["namespaces"] = []Spec{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	spec.Mount("/grace", "bind", filepath.Join(programs, "grace"), "bind", "ro")
	spec.Mount("/app", "bind", filepath.Join(programs, "app"), "bind", "ro")
	spec.Mount("/plain", "bind", filepath.Join(programs, "plain"), "bind", "ro")
	change(spec)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	Write(t, bundle, "config.json", string(text), 0o644)
	return bundle
}

func readSpec(t *testing.T, bundle string) Spec {
	t.Helper()
	if out, err := exec.Command("runc", "spec", "--bundle", bundle).CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func AsRoot(Spec) {}

// AsAnybody is what clusters do that trust no image: a user of whom the image knows nothing, in the group of root.
func AsAnybody(spec Spec) {
	spec.At("process")["user"] = Spec{"uid": Anybody, "gid": 0}
	WithoutCapabilities(spec)
}

const Anybody = 1000650000 // of the range that OpenShift takes its users from

func WithoutCapabilities(spec Spec) { delete(spec.At("process"), "capabilities") }

// WithRun is a volume as clusters make them: all may write to it.
func WithRun(spec Spec) { spec.Mount("/run", "tmpfs", "tmpfs", "mode=0777") }

func WithTmp(spec Spec) { spec.Mount("/tmp", "tmpfs", "tmpfs", "mode=1777") }

// WithHost adds the host's programs.
func WithHost(spec Spec) { spec.Mount("/usr", "bind", "/usr", "rbind", "ro") }

// Path is a file of PID 1 in the host's /proc; those below root are the container's own.
func (c *Container) Path(name string) string {
	c.T.Helper()
	var state struct{ PID int }
	if err := json.Unmarshal([]byte(c.Do("state", c.Name)), &state); err != nil {
		c.T.Fatal(err)
	}
	return filepath.Join("/proc", strconv.Itoa(state.PID), name)
}

// Proc is a file of the container's own /proc, where its PID 1 is 1.
func (c *Container) Proc(name string) string {
	c.T.Helper()
	return Read(c.T, c.Path("root/proc/"+name))
}

// Denies is what a container's seccomp profile forbids.
func Denies(calls ...string) func(Spec) {
	return func(spec Spec) {
		spec.At("linux")["seccomp"] = Spec{
			"defaultAction": "SCMP_ACT_ALLOW",
			"syscalls":      []Spec{{"names": calls, "action": "SCMP_ACT_ERRNO"}},
		}
	}
}

// AsDocker has docker's capabilities, which suffice to change users but not to trace others, and some more.
func AsDocker(more ...string) func(Spec) {
	granted := append([]string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}, more...)
	return func(spec Spec) {
		spec.At("process")["capabilities"] = Spec{"bounding": granted, "effective": granted, "permitted": granted}
	}
}

// Capable is root with these capabilities and no others.
func Capable(granted ...string) func(Spec) {
	return func(spec Spec) {
		spec.At("process")["capabilities"] = Spec{"bounding": granted, "effective": granted, "permitted": granted}
	}
}

func Both(first, second func(Spec)) func(Spec) {
	return func(spec Spec) { first(spec); second(spec) }
}
