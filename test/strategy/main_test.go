// Package strategy tests the ways to upgrade under load: one after the other, one instance at a time, a canary, a warm way back,
// more instances and fewer, and fresh ones.
package strategy

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
