package chaos

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const variable = "GRACE_CHAOS_ISOLATED"

// isolate runs the test once more, as the first process of namespaces of its own: whatever happens, nothing of it is left
// when that has ended, and it can mount and fill file systems. Users other than root do without.
func isolate(t *testing.T) (isolated, here bool) {
	if os.Getenv(variable) != "" {
		if err := furnish(); err != nil {
			t.Fatal(err)
		}
		return true, true
	}
	runtime.LockOSThread() // for Pdeathsig, which comes when the thread ends
	var said bytes.Buffer
	again := exec.Command("/proc/self/exe", append(withoutFormat(os.Args[1:]), "-test.v=true")...)
	again.Env = append(os.Environ(), variable+"=yes")
	again.Stdout, again.Stderr = &said, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := again.Start()
	if errors.Is(err, syscall.EPERM) {
		runtime.UnlockOSThread()
		t.Log("without namespaces: faults that need root are left out")
		return false, true
	}
	if err == nil {
		err = again.Wait()
	}
	t.Log(said.String())
	if err != nil {
		t.Error(err)
	}
	return false, false
}

// withoutFormat leaves out what go test has asked for: this test reads it instead.
func withoutFormat(arguments []string) []string {
	return slices.DeleteFunc(slices.Clone(arguments), func(a string) bool { return strings.HasPrefix(a, "-test.v") })
}

// migration has the kernel give what waits for a listener that is closed to another one of its group, as it may be set.
const migration = "/proc/sys/net/ipv4/tcp_migrate_req"

func furnish() error {
	return errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		raiseLoopback(),
	)
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
