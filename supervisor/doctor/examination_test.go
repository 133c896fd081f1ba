package doctor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/supervisor/doctor"
	"golang.org/x/sys/unix"
)

// deny installs a filter as containers have them, for all that this process and
// those below it do. The architecture is not looked at: nobody here evades it.
func deny(calls []uintptr) error {
	if len(calls) == 0 {
		return nil
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	for _, number := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(number), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// atOnce spares a second at the end of each process that the race detector is in.
const atOnce = "GORACE=atexit_sleep_ms=0"

// examine runs a doctor in a process of its own, with change made to it.
func examine(t *testing.T, e task, change func(*exec.Cmd)) doctor.Report {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", asDoctor, string(text))
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+emptyDir(t), atOnce)
	change(cmd)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

func parse(t *testing.T, out []byte) doctor.Report {
	t.Helper()
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range r.Findings {
		if f.Means == "" || f.State == doctor.Missing && f.Do == "" && !strings.HasPrefix(f.Means, "not tested") {
			t.Errorf("%s is %s, and nobody is told what that means or what to do", f.Mechanism, f.State)
		}
	}
	return r
}

// emptyDir is one that anybody can write to, and that is empty again at the end.
func emptyDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	return dir
}

func asItIs(*exec.Cmd) {}

func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

func without(capability string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		setpriv := exec.Command("setpriv", append([]string{"--bounding-set=-" + capability, os.Args[0]}, cmd.Args[1:]...)...)
		cmd.Path, cmd.Args, cmd.Err = setpriv.Path, setpriv.Args, setpriv.Err
	}
}

func mayBeOthers() error {
	if os.Getuid() != 0 {
		return errors.New("only root can be others")
	}
	return nil
}

// checkStates compares what matters for a case; all else has to be ok.
func checkStates(t *testing.T, r doctor.Report, want map[string]doctor.State) {
	t.Helper()
	got := map[string]doctor.State{}
	for _, f := range r.Findings {
		got[f.Mechanism] = f.State
		if f.State != doctor.OK && want[f.Mechanism] != f.State && !anyState[f.Mechanism] {
			t.Errorf("%s is %s: %s", f.Mechanism, f.State, f.Means)
		}
	}
	for _, mechanism := range slices.Sorted(maps.Keys(want)) {
		if got[mechanism] != want[mechanism] {
			t.Errorf("%s is %q, want %q", mechanism, got[mechanism], want[mechanism])
		}
	}
}

// anyState are those that the machine decides.
var anyState = map[string]bool{"tcp_migrate_req": true, "service manager": true, "open files": true, "ports below 1024": true}

func TestRoot(t *testing.T) {
	requirement.Check(t, "root", mayBeOthers())
	r := examine(t, task{Options: options()}, asItIs)
	checkStates(t, r, map[string]doctor.State{
		"kernel": doctor.OK, "pidfd": doctor.OK, "orphans": doctor.OK, "starting an app": doctor.OK, "held listeners": doctor.OK,
		"readiness by looking": doctor.OK, "counting connections": doctor.OK, "NOTIFY_SOCKET": doctor.OK, "ports below 1024": doctor.OK,
		"seccomp listener": doctor.OK, "app's memory": doctor.OK, "app's sockets": doctor.OK, "steering": doctor.OK, "farewell": doctor.OK, "PID 1": doctor.OK,
	})
	if r.Held != doctor.OK || r.Captured != doctor.OK {
		t.Errorf("held listeners: %s, capture: %s", r.Held, r.Captured)
	}
}

func TestOtherRights(t *testing.T) {
	requirement.Check(t, "root", mayBeOthers())
	user := func(name string) task {
		e := task{Options: options()}
		e.Options.User = name
		return e
	}
	for name, c := range map[string]struct {
		task           task
		change         func(*exec.Cmd)
		want           map[string]doctor.State
		held, captured doctor.State
	}{
		"nobody": {user(""), asNobody, map[string]doctor.State{
			"seccomp listener": doctor.Limited, "app's sockets": doctor.OK, "farewell": doctor.Limited, "ports below 1024": lowPortsOf(doctor.Missing),
		}, doctor.OK, doctor.Limited},
		"root for nobody": {user("65534"), asItIs, map[string]doctor.State{
			"readiness by looking": doctor.OK, "app's sockets": doctor.OK, "ports below 1024": lowPortsOf(doctor.Limited),
		}, doctor.OK, doctor.OK},
		"nobody for root": {user("0"), asNobody, map[string]doctor.State{
			"NOTIFY_SOCKET": doctor.Missing, "farewell": doctor.Limited,
		}, doctor.Missing, doctor.Missing},
		"a user that is not there": {user("nobody-at-all"), asItIs, map[string]doctor.State{
			"app's user": doctor.Missing,
		}, doctor.Missing, doctor.Missing},
		"root without the right to trace": {user("65534"), without("sys_ptrace"), map[string]doctor.State{
			"readiness by looking": doctor.Limited, "counting connections": doctor.Limited,
			"app's memory": doctor.Missing, "app's sockets": doctor.Missing, "ports below 1024": lowPortsOf(doctor.Limited), "farewell": doctor.Limited,
		}, doctor.OK, doctor.Missing},
		"root without the right to change users": {user("65534"), without("setuid"), map[string]doctor.State{
			"starting an app": doctor.Missing,
		}, doctor.Missing, doctor.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			r := examine(t, c.task, c.change)
			checkStates(t, r, c.want)
			if r.Held != c.held || r.Captured != c.captured {
				t.Errorf("held listeners: %s, capture: %s; want %s and %s", r.Held, r.Captured, c.held, c.captured)
			}
		})
	}
}

// lowPortsOf is ok on a machine that gives low ports to all, as containers do.
func lowPortsOf(elsewhere doctor.State) doctor.State {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return elsewhere
	}
	if first, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && first <= 80 {
		return doctor.OK
	}
	return elsewhere
}

func TestSeccompProfiles(t *testing.T) {
	for name, c := range map[string]struct {
		denied         uintptr
		mechanism      string
		state          doctor.State
		held, captured doctor.State
	}{
		"pidfd_getfd":       {unix.SYS_PIDFD_GETFD, "app's sockets", doctor.Limited, doctor.OK, doctor.Limited},
		"pidfd_open":        {unix.SYS_PIDFD_OPEN, "pidfd", doctor.Missing, doctor.Missing, doctor.Missing},
		"pidfd_send_signal": {unix.SYS_PIDFD_SEND_SIGNAL, "pidfd", doctor.Missing, doctor.Missing, doctor.Missing},
		"seccomp":           {unix.SYS_SECCOMP, "seccomp listener", doctor.Missing, doctor.OK, doctor.Missing},
		"prctl":             {unix.SYS_PRCTL, "orphans", doctor.Missing, doctor.Missing, doctor.Missing},
		"setsockopt":        {unix.SYS_SETSOCKOPT, "steering", doctor.Missing, doctor.Missing, doctor.Missing},
		"sendto":            {unix.SYS_SENDTO, "counting connections", doctor.Limited, doctor.OK, doctor.OK},
	} {
		t.Run(name, func(t *testing.T) {
			r := examine(t, task{Options: options(), Deny: []uintptr{c.denied}}, asItIs)
			i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Mechanism == c.mechanism })
			if i < 0 || r.Findings[i].State != c.state {
				t.Errorf("%s is not %s: %+v", c.mechanism, c.state, r.Findings)
			}
			if r.Held != c.held || r.Captured != c.captured {
				t.Errorf("held listeners: %s, capture: %s; want %s and %s: %+v", r.Held, r.Captured, c.held, c.captured, r.Findings)
			}
		})
	}
}

// A grace process around this one has the seccomp listener.
func TestNested(t *testing.T) {
	requirement.Check(t, "root", mayBeOthers())
	text, err := json.Marshal(task{Options: options()})
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := parse(t, runCaptured(t, executable, asDoctor, string(text)))
	checkStates(t, r, map[string]doctor.State{"seccomp listener": doctor.Missing, "held listeners": doctor.OK, "steering": doctor.OK})
	if r.Held != doctor.OK || r.Captured != doctor.Missing {
		t.Errorf("held listeners: %s, capture: %s", r.Held, r.Captured)
	}
}

func runCaptured(t *testing.T, path string, args ...string) []byte {
	t.Helper()
	family, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	p, err := family.Start(childproc.Spec{
		Path: path, Args: append([]string{path}, args...), Env: append(os.Environ(), atOnce),
		Stdin: -1, Stdout: int(writer.Fd()), Stderr: 2, Umask: -1, Capture: true,
	})
	writer.Close()
	if err != nil {
		t.Fatal(err)
	}
	calls, err := p.Captured()
	if err != nil {
		t.Fatal(err)
	}
	defer calls.Close()
	go func() {
		for call, err := calls.Next(); err == nil; call, err = calls.Next() {
			_ = call.Continue()
		}
	}()
	var out bytes.Buffer
	if _, err := out.ReadFrom(reader); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Status() != 0 {
		t.Errorf("the doctor ended with %v, %v", exit, err)
	}
	if err := p.Reap(); err != nil {
		t.Error(err)
	}
	return out.Bytes()
}
