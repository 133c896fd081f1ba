// Package operate tests what operators look at and guard: metrics, pid files, permissions.
package operate

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
