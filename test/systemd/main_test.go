// Package systemd tests the units and pages for systemd under a systemd of the test's own.
package systemd

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
