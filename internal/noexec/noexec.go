// Package noexec lets tests do without programs in memory, as on a system that does not execute them.
package noexec

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable is set in the environment of a test binary that [TestAgain] runs.
const variable = "GRACE_TEST_NOEXEC"

const (
	first  = "first"  // process of a pid namespace
	within = "within" // that namespace
)

// TestAgain runs all tests of this binary in a pid namespace with vm.memfd_noexec=2. It takes root. Flags stay as they are.
func TestAgain(t *testing.T) {
	t.Helper()
	c := again(first)
	c.Args = append(c.Args, "-test.v", "-test.run=.")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

func again(where string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), variable+"="+where)
	return c
}

// Denied reports whether this process cannot execute files in memory.
func Denied() bool { return os.Getenv(variable) != "" }

// Main is what a package's TestMain begins with. The first process of the namespace does not run the tests: the kernel drops
// signals that it does not handle, and every orphan is its child.
func Main() {
	if os.Getenv(variable) != first {
		return
	}
	if err := deny(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot forbid the execution of files in memory:", err)
		os.Exit(1)
	}
	c := again(within)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// deny is for this namespace and those below it (Documentation/admin-guide/sysctl/vm.rst).
func deny() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0)
}
