// Package compare does the same to grace and to the tools that people would use instead, and counts what clients lose.
package compare

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// run is what was asked for on the command line.
type run struct {
	tools, cases string
	endings      string
	rounds       int
	time         time.Duration
	quick        bool
	write        string
	keep, from   string
	verbose      bool
	command      string // that measures the same again
}

const about = `usage: go run ./scripts/bench compare [flags]

Replaces servers by grace and by the tools that people would use instead, under clients that never retry, and counts what
they lose. Each round does every case to every tool, in an order of its own. Debian packages that are missing
are installed (as root), pm2 by npm.

`

func parse(args []string) (r run, err error) {
	set := flag.NewFlagSet("compare", flag.ContinueOnError)
	set.StringVar(&r.tools, "tools", "all", "which `tools` are compared, separated by commas: "+names(tools()))
	set.StringVar(&r.cases, "cases", "all", "which `cases` are tried: "+caseNames())
	set.StringVar(&r.endings, "endings", "all", "which `ends` of the app are tried in the spaced case: drain, shutdown, die, own")
	set.IntVar(&r.rounds, "rounds", 3, "how often each case is tried; some are tried once or twice at most")
	set.DurationVar(&r.time, "for", 27*time.Minute, "no measurement is begun after this `time`")
	set.BoolVar(&r.quick, "quick", false, "one round, and each tool with the usual app only")
	set.StringVar(&r.write, "write", "", "the `page` whose tables are replaced, and beside which the plots are written")
	set.StringVar(&r.keep, "results", "", "a `file` for what was measured, as JSON")
	set.StringVar(&r.from, "from", "", "show what is in such a `file`, and measure nothing")
	set.BoolVar(&r.verbose, "v", false, "show the first failures of each case")
	set.Usage = func() {
		fmt.Fprint(set.Output(), about)
		set.PrintDefaults()
	}
	err = set.Parse(args)
	r.command = commandOf(set)
	if r.quick {
		r.rounds = 1
	}
	return r, err
}

// commandOf is without the flags that say only where the results go.
func commandOf(set *flag.FlagSet) string {
	words := []string{"go run ./scripts/bench compare"}
	set.Visit(func(f *flag.Flag) {
		if slices.Contains([]string{"tools", "cases", "endings", "rounds", "for", "quick"}, f.Name) {
			words = append(words, fmt.Sprintf("--%s=%s", f.Name, f.Value))
		}
	})
	return strings.Join(words, " ")
}

func caseNames() string {
	var all []string
	for _, s := range scenarios() {
		all = append(all, fmt.Sprintf("%s (%s)", hyphened(s.name), s.about))
	}
	return strings.Join(all, ", ")
}

// Run compares, and shows tables. The programs of grace and of the app are built in a folder that is removed at the end.
func Run(args []string, machine func() string) error {
	if len(args) == 2 && args[0] == "task" {
		return performTask(args[1])
	}
	r, err := parse(args)
	if err == flag.ErrHelp {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := r.report(machine)
	if err != nil {
		return err
	}
	return r.show(found)
}

func (r run) measure() (results []result, planned int, err error) {
	some, err := choose(r.tools, tools(), func(t tool) string { return t.name })
	if err != nil {
		return nil, 0, err
	}
	cases, err := choose(r.cases, scenarios(), func(s scenario) string { return s.name })
	if err != nil {
		return nil, 0, err
	}
	some, err = install(some)
	if err != nil {
		return nil, 0, err
	}
	dir, err := os.MkdirTemp("", "grace-compare-")
	if err != nil {
		return nil, 0, err
	}
	defer os.RemoveAll(dir)
	built, err := build(dir)
	if err != nil {
		return nil, 0, err
	}
	all := r.tasks(some, cases)
	return r.perform(all, built), len(all), nil
}

// choose is of a list of names, or all.
func choose[T any](list string, all []T, name func(T) string) ([]T, error) {
	if list == "all" {
		return all, nil
	}
	var some []T
	for wanted := range strings.SplitSeq(list, ",") {
		n := slices.IndexFunc(all, func(one T) bool { return hyphened(name(one)) == hyphened(wanted) })
		if n < 0 {
			return nil, fmt.Errorf("there is no %q; --help has the names", wanted)
		}
		some = append(some, all[n])
	}
	return some, nil
}

// hyphened is a name in one word, for the command line.
func hyphened(name string) string { return strings.ReplaceAll(strings.TrimSpace(name), " ", "-") }

const module = "github.com/gracerun/grace"

func build(dir string) (programs, error) {
	built := programs{filepath.Join(dir, "grace"), filepath.Join(dir, "app")}
	for path, source := range map[string]string{built.grace: module, built.app: module + "/scripts/bench/compare/app"} {
		compile := exec.Command("go", "build", "-o", path, source)
		compile.Env = append(os.Environ(), "CGO_ENABLED=0") // as grace is released
		if out, err := compile.CombinedOutput(); err != nil {
			return built, fmt.Errorf("cannot build %s: %w\n%s", source, err, out)
		}
	}
	return built, os.Chmod(dir, 0o755)
}

// tasks are those of each round, in random order.
func (r run) tasks(some []tool, cases []scenario) []task {
	var all []task
	for round := range r.rounds {
		first := len(all)
		for _, sc := range cases {
			if sc.rounds == 0 || round < sc.rounds {
				all = append(all, r.tasksOf(sc, some)...)
			}
		}
		of := all[first:]
		rand.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	}
	return all
}

func (r run) tasksOf(sc scenario, some []tool) []task {
	var all []task
	for _, t := range some {
		if sc.fault != none && !slices.Contains(t.faults, sc.fault) {
			continue
		}
		for _, end := range r.endingsOf(sc, t) {
			all = append(all, task{Tool: t.name, Scenario: sc.name, Ending: end})
		}
	}
	return all
}

func (r run) endingsOf(sc scenario, t tool) []ending {
	if sc.endings && !r.quick {
		return slices.DeleteFunc(slices.Clone(t.endings), func(end ending) bool { return !r.hasEnding(end) })
	}
	if slices.Contains(t.endings, usual) {
		return []ending{usual}
	}
	return t.endings[:1]
}

func (r run) hasEnding(end ending) bool {
	return r.endings == "all" || slices.Contains(strings.Split(r.endings, ","), string(end))
}

// Cases that say only what happens, and not how long it takes, go on several at once.
const atOnce = 3

// perform leaves out what does not fit into the time: the last rounds.
func (r run) perform(tasks []task, built programs) []result {
	deadline := time.Now().Add(r.time)
	var results []result
	var timed, others []task
	for _, t := range tasks {
		t.Grace, t.App = built.grace, built.app
		if t.isTimed() {
			timed = append(timed, t)
		} else {
			others = append(others, t)
		}
	}
	for _, share := range []struct {
		tasks  []task
		atOnce int
	}{{others, atOnce}, {timed, 1}} {
		results = append(results, r.performAtOnce(share.tasks, share.atOnce, deadline)...)
	}
	if left := len(tasks) - len(results); left > 0 {
		fmt.Fprintf(os.Stderr, "%d of %d measurements were left out: %s are over\n", left, len(tasks), r.time)
	}
	return results
}

func (r run) performAtOnce(tasks []task, atOnce int, deadline time.Time) []result {
	slots := make(chan struct{}, atOnce)
	results := make(chan result, len(tasks))
	var all sync.WaitGroup
	for _, t := range tasks {
		slots <- struct{}{}
		if time.Now().After(deadline) {
			break
		}
		all.Go(func() {
			one := t.inProcess()
			r.tell(one)
			results <- one
			<-slots
		})
	}
	all.Wait()
	close(results)
	var got []result
	for one := range results {
		got = append(got, one)
	}
	return got
}

// tell shows that something goes on.
func (r run) tell(of result) {
	fmt.Fprintf(os.Stderr, "%s %s, %s, %s: %s\n", time.Now().Format("15:04:05"), of.Tool, of.Scenario, of.Ending, of.line())
	if of.Failure != "" {
		fmt.Fprintln(os.Stderr, " ", of.Failure)
	}
	if r.verbose {
		for _, text := range slices.Concat(of.Said, of.Examples) {
			fmt.Fprintln(os.Stderr, "   ", text)
		}
	}
}

func (r result) line() string {
	return fmt.Sprintf("%d of %d requests failed, %d of %d upgrades, %d processes left", r.failed(), r.Requests, r.Served, r.Asked, r.Left)
}
