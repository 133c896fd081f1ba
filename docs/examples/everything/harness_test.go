//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/test/harness"
)

const patience = harness.Patience

func TestMain(m *testing.M) {
	if os.Getenv(plainVariable) != "" {
		os.Exit(servePlainly(os.Args[1]))
	}
	os.Exit(supervised.Run(m.Run, "."))
}
