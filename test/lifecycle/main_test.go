// Package lifecycle tests how the app's processes are started, signalled, watched, stopped and cleaned up.
package lifecycle

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
