package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/cgroup"
)

// inside is set for the process that has namespaces of its own.
const inside = "GRACE_TEST_KUBERNETES_INSIDE"

// shared is where all of the cluster sees the same files. They are in memory, and gone with the mount namespace.
var shared = os.Getenv(inside)

// hostWide are the settings that a kubelet writes for the whole machine. Here it writes into copies.
var hostWide = []string{
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes",
}

// runInside starts this test again in namespaces and cgroups of its own, which end with it. The first process there is a shell,
// because it reaps orphans.
func runInside() (status int, err error) {
	before := settings()
	dir, err := os.MkdirTemp("", "grace-kubernetes-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	groups, err := makeGroups()
	defer func() { err = errors.Join(err, removeGroups(groups)) }()
	if err != nil {
		return 0, err
	}
	interrupted, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	runtime.LockOSThread() // for Pdeathsig, which looks at the thread (prctl(2))
	test := exec.CommandContext(interrupted, "/bin/sh", append([]string{"-c", `"$@"; exit $?`, "sh"}, os.Args...)...)
	test.Env = append(os.Environ(), inside+"="+dir, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	test.Stdout, test.Stderr = os.Stdout, os.Stderr
	test.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		Pdeathsig:  syscall.SIGKILL,
	}
	in, err := test.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err = test.Start(); err == nil {
		err = errors.Join(leaveGroups(groups), in.Close(), test.Wait())
	}
	if after := settings(); after != before {
		return 1, fmt.Errorf("settings of this machine were changed: %s, before %s", after, before)
	}
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return failed.ExitCode(), nil
	}
	return 0, err
}

func settings() string {
	var all strings.Builder
	for _, name := range hostWide {
		text, _ := os.ReadFile(name) // not every kernel has all of them
		fmt.Fprintf(&all, " %s=%s", filepath.Base(name), bytes.TrimSpace(text))
	}
	return all.String()
}

// hierarchy is one tree of cgroups: of some controllers in version 1, of all others in version 2.
type hierarchy struct{ mount, kind, controllers string }

func hierarchies() (all []hierarchy, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	lines, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		h := hierarchy{f[1], f[2], ""}
		for group := range strings.Lines(string(lines)) {
			if names := strings.Split(group, ":")[1]; names != "" && f[2] == "cgroup" && strings.HasSuffix(f[3], ","+names) {
				h.controllers = names
			}
		}
		all = append(all, h)
	}
	return all, nil
}

const groupPrefix = "grace-kubernetes-"

// makeGroups makes a group in each hierarchy and enters it. What an earlier run has left, because it was killed, is removed.
func makeGroups() (groups []string, err error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		left, _ := filepath.Glob(h.mount + "/" + groupPrefix + "*")
		for _, dir := range slices.DeleteFunc(left, inUse) {
			if err := cgroup.Remove(dir); err != nil {
				return groups, err
			}
		}
		dir := filepath.Join(h.mount, groupPrefix+rand.Text())
		if err := os.Mkdir(dir, 0o755); err != nil {
			return groups, err
		}
		groups = append(groups, dir)
		if err := h.prepare(dir); err != nil {
			return groups, fmt.Errorf("cannot prepare cgroup %s: %w", dir, err)
		}
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			return groups, fmt.Errorf("cannot enter cgroup %s: %w", dir, err)
		}
	}
	return groups, nil
}

// inUse says whether another run is in a group, or in the one that delegate makes.
func inUse(dir string) bool {
	for _, name := range []string{"cgroup.procs", daemons + "/cgroup.procs"} {
		if pids, _ := os.ReadFile(filepath.Join(dir, name)); len(pids) > 0 {
			return true
		}
	}
	return false
}

const daemons = "daemons"

// prepare copies the processors and memory that a group of cpuset may use: the first version has none of them in a new one.
func (h hierarchy) prepare(dir string) error {
	if h.controllers != "cpuset" {
		return nil
	}
	var errs error
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(h.mount, name))
		errs = errors.Join(errs, err, os.WriteFile(filepath.Join(dir, name), text, 0))
	}
	return errs
}

// leaveGroups leaves them to the processes that were started there.
func leaveGroups(groups []string) (errs error) {
	for _, dir := range groups {
		errs = errors.Join(errs, os.WriteFile(filepath.Dir(dir)+"/cgroup.procs", []byte("0"), 0))
	}
	return errs
}

// removeGroups waits for the kernel, which ends the processes of a pid namespace after its first one.
func removeGroups(groups []string) error {
	errs := leaveGroups(groups) // again, if nothing was started
	for _, dir := range groups {
		err := cgroup.Remove(dir)
		for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); err = cgroup.Remove(dir) {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("a cgroup is left: %w", err))
		}
	}
	return errs
}

// furnish mounts what the cluster may change, over what is this machine's. The end of standard input says that no other process is in
// the groups.
func furnish() error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", shared, "tmpfs", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{*programs, program(""), "", syscall.MS_BIND}, // which the nodes might hide
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	return errors.Join(copySettings(), mountGroups(all))
}

// copySettings leaves only the network's settings writable, which are those of a namespace.
func copySettings() error {
	errs := errors.Join(bind("/proc/sys", "/proc/sys", syscall.MS_RDONLY), bind("/proc/sys/net", "/proc/sys/net", 0))
	for _, name := range hostWide {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // this kernel has none
		}
		to := filepath.Join(shared, "settings", filepath.Base(name))
		errs = errors.Join(errs, write(to, string(text)), bind(to, name, 0))
	}
	return errs
}

// bind needs two calls, because the first one ignores the flags (mount(2)).
func bind(source, target string, flags uintptr) error {
	err := syscall.Mount(source, target, "", syscall.MS_BIND, "")
	if err == nil {
		err = syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|flags, "")
	}
	if err != nil {
		return fmt.Errorf("cannot mount %s over %s: %w", source, target, err)
	}
	return nil
}

// mountGroups mounts each hierarchy again: what the group of this process is becomes the root.
func mountGroups(all []hierarchy) error {
	if len(all) > 1 {
		if err := syscall.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for _, h := range all {
		if err := os.MkdirAll(h.mount, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(h.kind, h.mount, h.kind, 0, h.controllers); err != nil {
			return fmt.Errorf("cannot mount the cgroups of %q: %w", h.controllers, err)
		}
	}
	if len(all) == 1 && all[0].kind == "cgroup2" {
		return delegate(all[0].mount)
	}
	return nil
}

// delegate lets groups below this one have limits: no process may be in a group that gives its controllers on (cgroups(7)).
func delegate(mount string) error {
	group := filepath.Join(mount, daemons)
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	for _, pid := range []string{"1", "0"} {
		if err := os.WriteFile(group+"/cgroup.procs", []byte(pid), 0); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(mount + "/cgroup.controllers")
	if err != nil {
		return err
	}
	names := strings.Fields(string(text))
	for _, needed := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.Contains(names, needed) {
			return fmt.Errorf("pods need the controller %[1]s: echo +%[1]s > /sys/fs/cgroup/cgroup.subtree_control", needed)
		}
	}
	return os.WriteFile(mount+"/cgroup.subtree_control", []byte("+"+strings.Join(names, " +")), 0)
}

// program is the path of one of the static programs.
func program(name string) string { return filepath.Join(shared, "programs", name) }

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
