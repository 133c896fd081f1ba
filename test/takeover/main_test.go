// Package takeover has grace replace servers that it has not started, under load.
package takeover

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
