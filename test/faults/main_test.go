// Package faults tests bad input, exhausted limits, and apps and clients that misbehave.
package faults

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }
