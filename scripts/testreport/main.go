// Testreport reads what go test -json writes and shows what a person wants to
// know: the closing line of each package, what failed, what was skipped and why.
// It fails if a test failed, or if a package that has tests ran none.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
	if !r.close() {
		os.Exit(1)
	}
}

// event is one line of go test -json, as go doc test2json describes it.
type event struct {
	Action, Package, Test, Output string
}

// report is the result so far.
type report struct {
	out              io.Writer
	running          map[string]*suite
	skips            []string
	failures         []string // what the tests that failed have said of it
	packages, failed int
	passed           int             // tests that are no part of another
	recipes          map[string]bool // pages that were run as they are written
}

// suite is one package while its tests run.
type suite struct {
	held []event // output, which matters if the package fails
	ran  bool    // at least one test was not skipped
}

func newReport(out io.Writer) *report {
	return &report{out: out, running: map[string]*suite{}, recipes: map[string]bool{}}
}

func (r *report) read(in io.Reader) error {
	events := json.NewDecoder(in)
	for {
		var e event
		err := events.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the results of the tests: %w", err)
		}
		r.add(e)
	}
}

func (r *report) add(e event) {
	if e.Action == "build-output" {
		fmt.Fprint(r.out, e.Output)
	}
	if e.Package == "" {
		return
	}
	s := r.running[e.Package]
	if s == nil {
		s = &suite{}
		r.running[e.Package] = s
	}
	switch {
	case e.Action == "output":
		s.hold(e)
	case e.Test != "":
		r.testEvent(e, s)
	default:
		r.packageEvent(e, s)
	}
}

func (s *suite) hold(line event) {
	if !strings.HasPrefix(line.Output, "=== ") {
		s.held = append(s.held, line)
	}
}

func (s *suite) forget(test string) {
	s.held = slices.DeleteFunc(s.held, func(line event) bool { return line.Test == test })
}

func (r *report) testEvent(e event, s *suite) {
	switch e.Action {
	case "pass":
		s.ran = true
		s.forget(e.Test)
		r.count(e)
	case "fail":
		s.ran = true
		r.failures = append(r.failures, s.complaints(e.Test)...)
	case "skip":
		r.skips = append(r.skips, e.Package+" "+e.Test+": "+s.reason(e.Test))
		s.forget(e.Test)
	}
}

// count notes a recipe by the name of the test's part that runs its page.
func (r *report) count(e event) {
	test, part, isPart := strings.Cut(e.Test, "/")
	if !isPart {
		r.passed++
	}
	if isPart && strings.HasPrefix(test, "TestPages") && strings.HasSuffix(e.Package, "/docs/recipes") {
		name, _, _ := strings.Cut(part, "/")
		r.recipes[name] = true
	}
}

const (
	complaintsAtMost = 5
	complaintAtMost  = 300
)

// complaints are the beginning of what a test that failed has said.
func (s *suite) complaints(test string) []string {
	said := []string{test}
	for _, line := range s.held {
		text := strings.TrimSpace(line.Output)
		if line.Test != test || !strings.Contains(text, "_test.go:") || len(said) > complaintsAtMost {
			continue
		}
		said = append(said, "    "+text[:min(len(text), complaintAtMost)])
	}
	return said
}

// reason is what a test said when it was skipped.
func (s *suite) reason(test string) string {
	var said []string
	for _, line := range s.held {
		text := strings.TrimSpace(line.Output)
		if line.Test == test && !strings.HasPrefix(text, "--- ") {
			said = append(said, text)
		}
	}
	return strings.Join(said, " ")
}

func (r *report) packageEvent(e event, s *suite) {
	switch e.Action {
	case "skip": // it has no test files
		delete(r.running, e.Package)
	case "pass":
		r.endPassed(e.Package, s)
	case "fail":
		r.end(e.Package, false)
		s.show(r.out, "")
	}
}

func (r *report) endPassed(name string, s *suite) {
	r.end(name, s.ran)
	if s.ran {
		s.show(r.out, "ok ")
		return
	}
	fmt.Fprintf(r.out, "FAIL\t%s\tran no test\n", name)
}

func (r *report) end(name string, well bool) {
	delete(r.running, name)
	r.packages++
	if !well {
		r.failed++
	}
}

// show prints the held lines that begin so.
func (s *suite) show(out io.Writer, beginning string) {
	for _, line := range s.held {
		if strings.HasPrefix(line.Output, beginning) {
			fmt.Fprint(out, line.Output)
		}
	}
}

// close prints the sum and says whether all is well.
func (r *report) close() bool {
	for _, skip := range r.skips {
		fmt.Fprintln(r.out, "skipped", skip)
	}
	for name, s := range r.running {
		s.show(r.out, "")
		fmt.Fprintf(r.out, "FAIL\t%s\tdid not end\n", name)
		r.end(name, false)
	}
	for _, failure := range r.failures {
		fmt.Fprintln(r.out, "failed", failure)
	}
	if len(r.recipes) > 0 {
		fmt.Fprintf(r.out, "recipes that were run as they are written: %s\n", strings.Join(slices.Sorted(maps.Keys(r.recipes)), ", "))
	}
	word := "ok  "
	if r.failed > 0 || r.packages == 0 {
		word = "FAIL"
	}
	fmt.Fprintf(r.out, "%s\t%d packages, %d failed; %d tests passed, %d skipped\n", word, r.packages, r.failed, r.passed, len(r.skips))
	return word != "FAIL"
}
