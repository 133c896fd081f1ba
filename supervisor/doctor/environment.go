package doctor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
	"golang.org/x/sys/unix"
)

// environment is where grace runs.
type environment struct {
	manager     serviceManager
	filtered    bool // a seccomp profile is in force
	ptraceScope int  // of the security module Yama
}

// serviceManager is what starts grace and ends it.
type serviceManager string

const (
	nobody     serviceManager = "no service manager"
	systemd    serviceManager = "systemd"
	docker     serviceManager = "docker"
	podman     serviceManager = "podman"
	kubernetes serviceManager = "kubernetes"
	container  serviceManager = "a container"
)

func (k serviceManager) contains() bool { return k != nobody && k != systemd }

func detectEnvironment() environment {
	scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	n, _ := strconv.Atoi(strings.TrimSpace(string(scope)))
	status, _ := os.ReadFile("/proc/self/status")
	return environment{
		manager:     detectServiceManager(),
		filtered:    bytes.Contains(status, []byte("\nSeccomp:\t2\n")),
		ptraceScope: n,
	}
}

// initialPIDNamespace is the inode of the one namespace that is no container's
// (PROC_PID_INIT_INO in linux/proc_ns.h).
const initialPIDNamespace = "pid:[4026531836]"

func detectServiceManager() serviceManager {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	switch {
	case os.Getenv("KUBERNETES_SERVICE_HOST") != "":
		return kubernetes
	case exists("/.dockerenv"):
		return docker
	case exists("/run/.containerenv"):
		return podman
	case os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("INVOCATION_ID") != "":
		return systemd
	case err == nil && namespace != initialPIDNamespace:
		return container
	}
	return nobody
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// tracing is how to get the right to look into an app of the app's user.
func (e *examination) tracing() string {
	if e.identity != nil && e.environment.manager.contains() {
		return "start the container as the app's user and leave --user out, or " + e.environment.tracing()
	}
	return e.environment.tracing()
}

// tracing is how to get the right to look into any app.
func (p environment) tracing() string {
	switch {
	case p.manager == kubernetes:
		return "add SYS_PTRACE to securityContext.capabilities of the container"
	case p.manager.contains():
		return "start the container with the capability SYS_PTRACE (docker run --cap-add SYS_PTRACE)"
	case p.ptraceScope > 1:
		return "sysctl kernel.yama.ptrace_scope=1, or start grace as root with CAP_SYS_PTRACE"
	}
	return "start grace as the app's user, or as root with CAP_SYS_PTRACE"
}

// announcing is how to get the rights for farewell.
func (p environment) announcing() string {
	switch {
	case p.manager == kubernetes:
		return "run the container as root, with BPF, NET_ADMIN and SYS_PTRACE added to its securityContext.capabilities"
	case p.manager.contains():
		return "start the container as root, with --cap-add BPF --cap-add NET_ADMIN --cap-add SYS_PTRACE"
	}
	return "start grace as root, or with CAP_BPF and CAP_NET_ADMIN"
}

// timeToStop is what a service manager allows between TERM and KILL unless it is told
// otherwise.
func (k serviceManager) timeToStop() (limit time.Duration, setting string) {
	switch k {
	case systemd:
		return 90 * time.Second, "TimeoutStopSec= in the unit"
	case docker, podman:
		return 10 * time.Second, "docker stop -t, --stop-timeout or stop_grace_period"
	case kubernetes:
		return 30 * time.Second, "terminationGracePeriodSeconds of the pod"
	case container:
		return 10 * time.Second, "the stop timeout of the container runtime"
	}
	return 0, ""
}

// afterDrain is what grace needs itself to end after its app.
const afterDrain = 5 * time.Second

// serviceManager compares what is allowed by default with what grace allows the app: the
// setting itself cannot be seen from here.
func (e *examination) serviceManager() Finding {
	k := e.environment.manager
	flags, stop := e.options.stop()
	f := Finding{Mechanism: "service manager", State: OK, Means: fmt.Sprintf("%s; %s is %s", k, flags, stop)}
	allowed, setting := k.timeToStop()
	if allowed == 0 {
		return f
	}
	needed := stop + afterDrain
	f.Means = fmt.Sprintf("%s, which by default sends KILL %s after TERM; %s is %s", k, allowed, flags, stop)
	if needed > allowed {
		f.State = Limited
		f.Do = fmt.Sprintf("set %s to %s, or %s to %s", setting, needed, flags, allowed-afterDrain)
	}
	return f
}

// stop is the longest time from TERM until the app has been stopped, and the flags that set it.
func (o Options) stop() (flags string, longest time.Duration) {
	if o.DrainDelay == 0 {
		return "--drain-timeout", o.DrainTimeout
	}
	return "--drain-delay plus --drain-timeout", o.DrainDelay + o.DrainTimeout
}

func pidOne() Finding {
	f := Finding{Mechanism: "PID 1", State: OK, Means: fmt.Sprintf("this is PID %d; as PID 1 grace reaps all orphans and passes the app's status on", os.Getpid())}
	if os.Getpid() == 1 {
		f.Means = "this is PID 1: grace reaps all orphans and passes the app's status on"
	}
	return f
}

// fewFiles is what Linux gives to everybody.
const fewFiles = 1024

func (e *examination) openFiles() Finding {
	f := Finding{Mechanism: "open files", State: OK}
	var limits syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limits); err != nil {
		f.State, f.Means = Limited, "the limit cannot be read: "+err.Error()
		return f
	}
	f.Means = fmt.Sprintf("the limit can be raised to %d; each connection needs one descriptor, and each generation has a limit of its own", limits.Max)
	if soft := e.softLimit(); soft != "" {
		f.Means = fmt.Sprintf("an app starts with a limit of %s and can raise it to %d; each generation has a limit of its own", soft, limits.Max)
	}
	if limits.Max < fewFiles {
		f.State = Limited
		f.Do = "raise it: LimitNOFILE= in the unit, docker run --ulimit nofile=..., ulimit -n"
	}
	return f
}

// softLimit asks a shell, if there is one: Go programs raise their own.
func (e *examination) softLimit() string {
	if e.family == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	spec := childproc.Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "ulimit -n"}, Env: handoff.CleanEnv(os.Environ()), Stdin: -1, Umask: -1, Identity: e.identity}
	output, exit, err := e.family.Output(ctx, spec, 64)
	soft := strings.TrimSpace(string(output))
	if err != nil || exit.Status() != 0 {
		return ""
	}
	if _, err := strconv.ParseUint(soft, 10, 64); err != nil {
		return ""
	}
	return soft
}
