package demo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/cmd/load"
)

// frame is what the screen shows while the demo lasts: at most 80 columns and 24 rows.
func (r *record) frame() []string {
	rows := []string{r.headline()}
	rows = append(rows, r.picture()...)
	rows = append(rows, r.table()...)
	return append(rows, "", r.news())
}

func (r *record) headline() string {
	if r.width < fullWidth {
		return r.paint.bold(fmt.Sprintf("grace demo: upgrade %d of %d", len(r.upgrades), r.options.upgrades))
	}
	left := fmt.Sprintf("grace demo   generation %d serves   upgrade %d of %d", r.generation, len(r.upgrades), r.options.upgrades)
	right := fmt.Sprintf("%.1f of %s", min(r.elapsed, r.duration).Seconds(), seconds(r.duration))
	return r.paint.bold(fmt.Sprintf("%-60s%16s", left, right))
}

// news is about the latest upgrade.
func (r *record) news() string {
	if len(r.upgrades) == 0 {
		return r.paint.faint(fmt.Sprintf("%d clients that never retry; Ctrl-C ends the demo", r.clients))
	}
	return r.outcome(r.upgrades[len(r.upgrades)-1])
}

// outcome says in one line how far an upgrade has come.
func (r *record) outcome(u *upgrade) string {
	text := fmt.Sprintf("upgrade %d", slices.Index(r.upgrades, u)+1)
	switch {
	case u.failed != "":
		return r.paint.bad(text + ": " + u.failed)
	case u.answered == 0:
		return text + ": a new generation starts"
	case u.gone == 0:
		return fmt.Sprintf("%s: generation %d answered after %s, %d drains", text, u.by, brief(u.answered), u.replaced)
	}
	return fmt.Sprintf("%s: generation %d answered after %s, %d was gone after %s", text, u.by, brief(u.answered), u.replaced, brief(u.gone))
}

// table has a row for each kind of client.
func (r *record) table() []string {
	first := fmt.Sprintf("%-33s", "")
	second := "ms               requests  failed"
	for _, phase := range r.phases() {
		first += fmt.Sprintf("%23s", phase.title)
		second += "      p50    p99    max"
	}
	rows := []string{r.paint.faint(first), r.paint.faint(second)}
	for _, m := range mix {
		rows = append(rows, r.row(string(m.kind), r.tally, m.kind))
	}
	if r.beside.tally.Requests() > 0 {
		rows = append(rows, r.row("plain app, GET", r.beside.tally))
	}
	return rows
}

func (r *record) row(title string, t load.Tally, kinds ...load.Kind) string {
	row := fmt.Sprintf("%-16s %8s %s", title, thousands(t.Requests(kinds...)), r.colored(7, t.Failures(kinds...)))
	for _, phase := range r.phases() {
		row += "  " + quantiles(t.Latency(phase.Phase, kinds...))
	}
	return row
}

// phase is a group of columns of the table.
type phase struct {
	load.Phase
	title string
}

// phases are those for which the table has room.
func (r *record) phases() []phase {
	outside, during := phase{load.Outside, "outside upgrades"}, phase{load.During, "during upgrades"}
	switch {
	case r.width >= fullWidth:
		return []phase{outside, during}
	case r.width >= 56:
		return []phase{during}
	}
	return nil
}

func (r *record) colored(width int, count uint64) string {
	text := fmt.Sprintf("%*s", width, thousands(count))
	if count > 0 {
		return r.paint.bad(text)
	}
	return r.paint.good(text)
}

func quantiles(h *hdrhistogram.Histogram) string {
	if h.TotalCount() == 0 {
		return fmt.Sprintf("%7s%7s%7s", "-", "-", "-")
	}
	return fmt.Sprintf("%7s%7s%7s", short(milliseconds(h.ValueAtQuantile(50))), short(milliseconds(h.ValueAtQuantile(99))), short(milliseconds(h.Max())))
}

// summary is what stays on the terminal. err is why the demo could not go on to the end.
func (r *record) summary(err error) string {
	var b strings.Builder
	fmt.Fprintln(&b, r.paint.bold(fmt.Sprintf("grace demo: %s in %s, under load from %d clients that never retry", plural(len(r.upgrades), "upgrade"), seconds(r.elapsed), r.clients)))
	for _, rows := range [][]string{r.picture(), r.table(), r.prose(slices.Concat(r.times(), r.aboutPlain())), r.prose(r.failureRows())} {
		if len(rows) > 0 {
			fmt.Fprintf(&b, "\n%s\n", strings.Join(rows, "\n"))
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.closing(err))
	return b.String()
}

// prose breaks lines that a narrow terminal would cut within a word.
func (r *record) prose(rows []string) []string {
	if r.width == fullWidth {
		return rows
	}
	var folded []string
	for _, row := range rows {
		folded = append(folded, strings.Split(strings.TrimSuffix(fold.Line(row, r.width, 2), "\n"), "\n")...)
	}
	return folded
}

// aboutPlain says what the plain app is, or why there is none.
func (r *record) aboutPlain() []string {
	switch {
	case r.beside.why != "":
		return []string{"There is no plain app beside, since its clients could not be asked to leave:", r.beside.why}
	case r.beside.tally.Requests() > 0:
		return []string{"plain app: net/http with Shutdown, unchanged. Its clients keep connections, and", "the kernel asks them to reconnect before an old generation ends."}
	}
	return nil
}

// times says how long upgrades took.
func (r *record) times() []string {
	answered := r.each(func(u *upgrade) time.Duration { return u.answered })
	gone := r.each(func(u *upgrade) time.Duration { return u.gone })
	if len(answered) == 0 || len(gone) == 0 {
		return nil
	}
	return []string{
		fmt.Sprintf("from SIGHUP to the first response of the new generation: %s, at most %s", brief(median(answered)), brief(slices.Max(answered))),
		fmt.Sprintf("from SIGHUP to the end of the old generation:            %s, at most %s", brief(median(gone)), brief(slices.Max(gone))),
	}
}

func (r *record) each(get func(*upgrade) time.Duration) []time.Duration {
	var all []time.Duration
	for _, u := range r.upgrades {
		if d := get(u); d > 0 {
			all = append(all, d)
		}
	}
	return all
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

// failureRows lists what failed: upgrades, requests by kind, and the first requests in full.
func (r *record) failureRows() []string {
	var rows []string
	for _, u := range r.upgrades {
		if u.failed != "" {
			rows = append(rows, r.outcome(u))
		}
	}
	byFailure, beside := r.tally.ByFailure(), r.beside.tally.ByFailure()
	for _, failure := range load.Failures() {
		if count := byFailure[failure] + beside[failure]; count > 0 {
			rows = append(rows, r.paint.bad(fmt.Sprintf("%7s %s", thousands(count), failure)))
		}
	}
	for _, failed := range slices.Concat(r.tally.First, r.beside.tally.First) {
		rows = append(rows, "        "+failed.String())
	}
	return append(rows, r.complaints...)
}

func (r *record) closing(err error) string {
	done := fmt.Sprintf("%s, %s requests, %s events", plural(len(r.upgrades), "upgrade"), thousands(r.requests()), thousands(r.tally.Events()))
	result := "none refused, reset or lost"
	if r.failed() {
		result = fmt.Sprintf("%s failed", thousands(r.failures()))
	}
	switch {
	case err != nil:
		return r.paint.bad(fmt.Sprintf("The demo did not come to its end: %v. Until then: %s: %s.", err, done, result))
	case r.failed():
		return r.paint.bad(fmt.Sprintf("%s: %s.", done, result))
	}
	return r.paint.good(fmt.Sprintf("%s: %s.", done, result))
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
