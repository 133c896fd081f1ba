package soak

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/hostinfo"
)

const beginning = `# A million requests

` + "`scripts/soak`" + ` replaces servers of several kinds again and again, under clients that never retry. Of 25 upgrades of each server, one comes after grace was killed with SIGKILL
and started again, so that it adopts the app, and one after a reexec. A request fails if it is refused, reset or cut short, if its answer is wrong, or if its connection is closed without an answer.

`

const ending = `
Descriptors and resident memory are of the grace process, which was built with the race detector here, after the first round of 25 upgrades and after the last one. ` + "`scripts/test`" + ` runs the same
with a few upgrades.
`

// write makes the page of this run.
func (s *soak) write(t *testing.T, path string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(beginning)
	fmt.Fprintf(&b, "The last run: %s, %s on %s, %d CPUs, %s.\n\n", s.begun.UTC().Format(time.DateOnly), time.Since(s.begun).Round(time.Second), hostinfo.Kernel(), runtime.NumCPU(), runtime.Version())
	b.WriteString("| server | upgrades | grace killed | reexecs | requests | failed | grace, first round | grace, last round |\n|---|---|---|---|---|---|---|---|\n")
	var all result
	var sent, failed uint64
	for _, r := range s.results {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | **%d** | %v | %v |\n", r.app, r.upgrades, r.kills, r.reexecs, r.tally.Requests(), r.tally.Failures(), r.first, r.last)
		all.upgrades, all.kills, all.reexecs = all.upgrades+r.upgrades, all.kills+r.kills, all.reexecs+r.reexecs
		sent, failed = sent+r.tally.Requests(), failed+r.tally.Failures()
	}
	fmt.Fprintf(&b, "| all | %d | %d | %d | %d | **%d** | | |\n", all.upgrades, all.kills, all.reexecs, sent, failed)
	b.WriteString(ending)
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
