// Package capture tests apps that bind by themselves: programs in many languages, servers that people run, and what goes wrong with them.
package capture

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
