// Package upgrade tests what an upgrade runs, what the app is told by each dialect, and what those who ask for an upgrade are answered.
package upgrade

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
