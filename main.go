//go:build linux

package main

import (
	"os"

	"github.com/gracerun/grace/cmd"
)

func main() {
	os.Exit(cmd.Execute())
}
