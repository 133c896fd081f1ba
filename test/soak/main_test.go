// Package soak replaces servers of several kinds again and again under load, with kills of grace and reexecs among the upgrades, and
// counts. scripts/soak runs it with a thousand upgrades and a million requests, scripts/test with a few.
package soak

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
