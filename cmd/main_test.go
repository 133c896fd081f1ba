package cmd

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const asGrace = "CMD_TEST_AS_GRACE"

// TestMain lets the test binary be grace itself, and the shim that its apps begin as.
func TestMain(m *testing.M) {
	if os.Getenv(asGrace) != "" {
		os.Exit(Execute())
	}
	os.Exit(m.Run())
}

func grace(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asGrace+"=yes", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// runGrace returns the exit status of a grace that ends by itself, and what it said.
func runGrace(t *testing.T, variables []string, args ...string) (status int, stderr string) {
	t.Helper()
	var said strings.Builder
	cmd := grace(args...)
	cmd.Env = append(cmd.Env, variables...)
	cmd.Stderr = &said
	status = statusOf(t, cmd)
	return status, said.String()
}

func statusOf(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}
