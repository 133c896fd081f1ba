//go:build linux

package main

import (
	"os"
	"testing"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
)

const patience = supervised.Patience

var binaries supervised.Binaries

func TestMain(m *testing.M) {
	if os.Getenv(plainVariable) != "" {
		os.Exit(servePlainly(os.Args[1]))
	}
	os.Exit(binaries.Run(m.Run, "."))
}
