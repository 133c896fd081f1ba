package capture_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

func init() {
	roles["without ptrace"] = restricted(dropPtrace)
	roles["without getfd"] = restricted(denyGetfd)
}

const nobody = 65534

// insideVariable tells a test that it runs with less rights.
const insideVariable = "GRACE_TEST_INSIDE"

// restricted gives up a right, of one thread, and goes on as the tests that are named.
func restricted(giveUp func() error) func([]string) {
	return func(args []string) {
		runtime.LockOSThread()
		if err := giveUp(); err != nil {
			panic(err)
		}
		panic(syscall.Exec("/proc/self/exe", append([]string{"test"}, args...), ordinaryEnv()))
	}
}

// dropPtrace takes effect at the exec: root gets what is in the bounding set.
func dropPtrace() error {
	return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0)
}

// denyGetfd does as Docker's own filter does.
func denyGetfd() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_PIDFD_GETFD},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return errors.Join(
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0),
	)
}

// rerun runs tests of this binary in other circumstances.
func rerun(t *testing.T, role string, change func(*exec.Cmd), args ...string) {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		t.Skip("runs inside of another test")
	}
	cmd := exec.Command("/proc/self/exe", append(args, "-test.v", "-test.timeout=2m")...)
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name(), roleVariable+"="+role)
	cmd.Dir = "/"
	if change != nil {
		change(cmd)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		t.Skip("runs inside of another test")
	}
	if os.Getuid() != 0 {
		requirement.Check(t, "root", os.ErrPermission)
	}
}

// inside tells whether the test of that name runs this one, which can show nothing otherwise.
func inside(name string) bool { return os.Getenv(insideVariable) == name }

func TestAsNobody(t *testing.T) {
	needRoot(t)
	rerun(t, "", func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}, "-test.run=.")
}

// The kernel is asked by trying.
func TestNeedsNoNewPrivs(t *testing.T) {
	s := spec("status")
	s.NoNewPrivs = false
	a := launch(t, s)
	l, err := a.Captured()
	if err == nil {
		defer l.Close()
	}
	if needed := errors.Is(err, unix.EACCES); needed != capture.NeedsNoNewPrivs() {
		t.Errorf("without it: %v, and it is said to be needed: %v", err, !needed)
	}
	if err != nil && !strings.Contains(err.Error(), "seccomp: permission denied (capturing takes root") {
		t.Errorf("got %v", err)
	}
}

func TestAppOfAnotherUser(t *testing.T) {
	needRoot(t)
	s := spec("socket", "127.0.0.1:0")
	s.Identity = &childproc.Identity{UID: nobody, GID: nobody, Groups: []int{nobody}}
	a := start(t, s)
	bind := a.next(t, capture.Bind)
	_, want, _ := a.step(t, "socket")
	if got := inode(duplicate(t, bind)); got != want {
		t.Errorf("inode %d, want %d", got, want)
	}
	must(t, bind.Install(boundSocket(t)))
	if _, _, errno := a.step(t, "bind"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
}

func TestWithoutThePtraceRight(t *testing.T) {
	needRoot(t)
	rerun(t, "without ptrace", nil, "-test.run=^TestAppOfAnotherUserIsClosed$")
}

func TestAppOfAnotherUserIsClosed(t *testing.T) {
	if !inside("TestWithoutThePtraceRight") {
		return
	}
	s := spec("socket", "127.0.0.1:0")
	s.Identity = &childproc.Identity{UID: nobody, GID: nobody, Groups: []int{nobody}}
	a := start(t, s)
	bind := a.next(t, capture.Bind)
	_, duplicated := bind.Duplicate()
	_, read := bind.Addr()
	_, named := bind.Protocol()
	_, numbered := bind.Inode()
	for what, err := range map[string]error{
		"duplicate": duplicated, "address": read, "protocol": named, "inode": numbered, "install": bind.Install(boundSocket(t)),
	} {
		if !errors.Is(err, capture.ErrNotPermitted) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if bind.PID() != a.PID {
		t.Errorf("process %d, want %d", bind.PID(), a.PID)
	}
	must(t, bind.Continue())
	a.step(t, "socket")
	if _, _, errno := a.step(t, "bind"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
}

func TestInAContainer(t *testing.T) {
	rerun(t, "without getfd", nil, "-test.run=^(TestFreshSocketWhereNoneCanBeTaken|TestCallsArrive|TestInstallReplacesTheSocket)$")
}

func TestFreshSocketWhereNoneCanBeTaken(t *testing.T) {
	if !inside("TestInAContainer") {
		return
	}
	a := startRole(t, "socket", "127.0.0.1:0")
	bind := a.next(t, capture.Bind)
	if _, err := bind.Duplicate(); !errors.Is(err, capture.ErrNotPermitted) {
		t.Errorf("duplicate: %v", err)
	}
	fresh := boundSocket(t)
	must(t, bind.Install(fresh))
	listen := a.next(t, capture.Listen)
	if got, err := listen.Inode(); err != nil || got != inode(fresh) {
		t.Errorf("inode %d, %v; want %d", got, err, inode(fresh))
	}
	must(t, unix.Listen(fresh, listen.Backlog()))
	must(t, listen.Return(0))
	connect(t, fresh)
}

func TestWhatIsNoSocketOrNoAddress(t *testing.T) {
	a := startRole(t, "nonsense")
	noDescriptor := a.next(t, capture.Bind)
	if _, err := noDescriptor.Duplicate(); !errors.Is(err, unix.EBADF) {
		t.Errorf("duplicate: %v", err)
	}
	if _, err := noDescriptor.Inode(); !errors.Is(err, unix.EBADF) {
		t.Errorf("inode: %v", err)
	}
	if err := noDescriptor.Install(boundSocket(t)); !errors.Is(err, unix.EBADF) {
		t.Errorf("install: %v", err)
	}
	must(t, noDescriptor.Continue())
	for _, want := range []syscall.Errno{unix.EFAULT, unix.EINVAL} {
		bind := a.next(t, capture.Bind)
		if address, err := bind.Addr(); !errors.Is(err, want) {
			t.Errorf("address %x, %v; want %v", address, err, want)
		}
		must(t, bind.Continue())
	}
	for _, want := range []syscall.Errno{unix.EBADF, unix.EFAULT, unix.EINVAL} {
		if _, _, errno := a.step(t, "bind"); errno != want {
			t.Errorf("the app got %v, want %v", errno, want)
		}
	}
}

func init() {
	roles["nonsense"] = func([]string) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			panic(err)
		}
		for _, call := range [][3]uintptr{{77, 0, 0}, {uintptr(fd), 8, 16}, {uintptr(fd), 0, 129}} {
			_, _, errno := unix.Syscall(unix.SYS_BIND, call[0], call[1], call[2])
			say("bind", fd, errno)
		}
	}
}
