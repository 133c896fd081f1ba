//go:build bench && linux

// Bench measures what grace costs beside the same thing without it. scripts/bench builds and runs it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench knows the programs that are measured.
type bench struct{ grace, app string }

var parts = []struct {
	name string
	run  func(bench) error
}{
	{"start", bench.start},
	{"latency", bench.latency},
	{"idle", bench.idle},
	{"drain", bench.drain},
	{"capture", bench.capture},
	{"many", bench.many},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 4 && args[0] == "clients" {
		return hold(args[1], args[2], args[3])
	}
	if err := checkParts(args); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := bench{filepath.Join(filepath.Dir(self), "grace"), filepath.Join(filepath.Dir(self), "app")}
	begun := time.Now()
	fmt.Println(machine())
	for _, part := range parts {
		if len(args) > 0 && !slices.Contains(args, part.name) {
			continue
		}
		if err := part.run(b); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Printf("\n%s, load %s at the end\n", time.Since(begun).Round(time.Second), loadAverage())
	return nil
}

func checkParts(names []string) error {
	var known []string
	for _, part := range parts {
		known = append(known, part.name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no part %q (have %s)", name, strings.Join(known, ", "))
		}
	}
	return nil
}

func machine() string {
	var uts unix.Utsname
	unix.Uname(&uts) // an unknown kernel is shown as none
	return fmt.Sprintf("%d CPUs (%s), Linux %s, %s, load %s",
		runtime.NumCPU(), processor(), unix.ByteSliceToString(uts.Release[:]), runtime.Version(), loadAverage())
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(text), "model name\t: ")
	name, _, _ := strings.Cut(rest, "\n")
	if name == "" {
		return runtime.GOARCH
	}
	return name
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
