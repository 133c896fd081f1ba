//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run, harness.BuildApp)) }
