// Package containers tests grace as PID 1 of containers, and the Dockerfile.
package containers

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
