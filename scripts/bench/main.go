// Bench measures what grace costs beside the same thing without it, in turns: go run ./scripts/bench.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gracerun/grace/internal/hostinfo"
	"github.com/gracerun/grace/scripts/bench/compare"
)

// bench knows the programs that are measured.
type bench struct {
	grace, app string
	figures    *summary
}

var parts = []struct {
	name string
	run  func(bench)
}{
	{"start", bench.start},
	{"latency", bench.latency},
	{"grace", bench.self},
	{"idle", bench.idle},
	{"drain", bench.drain},
	{"capture", bench.capture},
	{"many", bench.many},
	{"middleware", bench.middleware},
	{"adopt", bench.adopt},
	{"cpu", bench.cpu}, // the last one, when the sockets that the others leave in TIME_WAIT are gone
}

const usage = `usage: go run ./scripts/bench [start] [latency] [grace] [idle] [drain] [capture] [many] [middleware] [adopt] [cpu]
       go run ./scripts/bench farewell [--servers go,node] [--upgrades 50] [...]
       go run ./scripts/bench compare [--tools nginx-reload,pm2] [--cases spaced,burst] [--quick] [...]
       go run ./scripts/bench sizes [--write docs/sizes.md]
       go run ./scripts/bench surge [--servers puma,java] [--instances 4] [--rounds 5]

Measures grace beside the same thing without it, in turns. Linux; all take about ten minutes.

  start    from SIGHUP to the first response of the new process, beside a bare start, the ideal overlap of old and new, and
           tableflip; the start of a program as grace starts it
  latency  requests while upgrades go on, beside requests without any, and beside bare starts of the app at the same rate
  grace    the start of grace itself beside a bare start of the app; its memory, and its wake-ups while it has nothing to do
  idle     wake-ups and memory of grace while its app is idle and while it serves 20,000 connections
  drain    the end of a replaced app with 12, 1,000 and 10,000 open connections
  capture  an app that binds by itself, with grace's part in it and without: single calls, requests, start
  many     an app with a thousand addresses: its binds, with grace's part in them and without; status
  middleware  what drain's middleware costs a request
  adopt    from the start of grace until it has adopted the app of one that was killed, beside the start of the program alone
  cpu      CPU time of grace for an upgrade, with few sockets in TIME_WAIT and with 20,000
  farewell requests that fail when servers that know nothing of grace are replaced, with --farewell, without it and without
           grace: five minutes for each server, and only when it is asked for. farewell --help has the flags
  compare  grace beside the tools that people would use instead, in half an hour, and only when it is asked for
  sizes    what an upgrade costs with more listeners, instances, connections, generations that drain, and upgrades before; about
           ten minutes, and only when it is asked for. --write makes a page with plots
  surge    memory of servers with four instances during an upgrade of all at once, and with --max-surge 1; only when it is asked for

The figures depend on the machine and on what else it does: nothing fails for being slow. The last table has those with
an aim. What
they were, and how to read them, is in docs/measurements.md.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 4 && args[0] == "clients":
		return hold(args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "traffic":
		return sendTraffic(args[1])
	case len(args) > 1 && args[0] == "smallest":
		return superviseLeast(args[1], args[2:])
	case len(args) > 0 && args[0] == "compare":
		return compare.Run(args[1:], machine)
	}
	if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		fmt.Print(usage)
		return nil
	}
	measure, err := chooseParts(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "grace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return attempt(func() { measure(build(dir)) })
}

// chooseParts knows those with flags of their own.
func chooseParts(args []string) (measure func(bench), err error) {
	switch {
	case len(args) > 0 && args[0] == "farewell":
		r, servers, err := farewellFlags(args[1:])
		return func(b bench) { b.farewell(r, servers) }, err
	case len(args) > 0 && args[0] == "sizes":
		page, err := sizesFlags(args[1:])
		return func(b bench) { b.showSizes(page) }, err
	case len(args) > 0 && args[0] == "surge":
		r, servers, err := surgeFlags(args[1:])
		return func(b bench) { b.surge(r, servers) }, err
	}
	return func(b bench) { b.measure(args) }, checkParts(args)
}

// failure is what ends a measurement: nothing goes on after it.
type failure struct{ error }

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

// attempt gives the failure that has ended it.
func attempt(do func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	do()
	return nil
}

// measure runs the parts, or all where none is named.
func (b bench) measure(names []string) {
	fmt.Println(machine())
	defer b.end(time.Now())
	for _, part := range parts {
		if len(names) > 0 && !slices.Contains(names, part.name) {
			continue
		}
		if err := attempt(func() { part.run(b) }); err != nil {
			check(fmt.Errorf("%s: %w", part.name, err))
		}
	}
}

// end also shows what was measured before a part has failed.
func (b bench) end(begun time.Time) {
	b.figures.print()
	fmt.Printf("\n%s, load %s at the end\n", time.Since(begun).Round(time.Second), hostinfo.LoadAverage())
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
	return fmt.Sprintf("%d CPUs (%s), %s, %s, load %s",
		runtime.NumCPU(), processor(), hostinfo.Kernel(), runtime.Version(), hostinfo.LoadAverage())
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
