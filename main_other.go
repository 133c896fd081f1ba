//go:build !linux

package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintf(os.Stderr, "grace: cannot run on %s: grace needs Linux (pidfd, seccomp, SO_REUSEPORT); the Go packages handoff and drain work here\n", runtime.GOOS)
	os.Exit(1)
}
