// Package takeover has grace replace servers that it has not started, under load.
package takeover

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// mayTake says whether grace may duplicate the sockets of a process that is not below it (security/yama/yama_lsm.c).
func mayTake() error {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if os.Getuid() == 0 || err != nil || strings.TrimSpace(string(scope)) == "0" {
		return nil
	}
	return errors.New("kernel.yama.ptrace_scope lets only root look into processes of others")
}

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
