package compare

import (
	"fmt"
	"slices"
	"strings"
)

// table is one of the page's.
type table struct {
	title, text string
	head        []string
	lines       [][]string
}

func (t *table) add(cells ...any) {
	var line []string
	for _, cell := range cells {
		line = append(line, fmt.Sprint(cell))
	}
	t.lines = append(t.lines, line)
}

// String is Markdown.
func (t table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", t.title)
	if t.text != "" {
		fmt.Fprintf(&b, "%s\n\n", t.text)
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	line(slices.Repeat([]string{"---"}, len(t.head)))
	for _, cells := range t.lines {
		line(cells)
	}
	return b.String()
}

// tables leave out what was not measured.
func tables(results []result) []table {
	all := []table{
		toolTable(results), notAhead(results), lostTable(results), timeTable(results), backTable(results), burstTable(results), latencyTable(results), supervisorTable(results),
		badTable(results), hangTable(results), leftOutTable(results),
	}
	return slices.DeleteFunc(all, func(t table) bool { return len(t.lines) == 0 })
}

// toolTable has those that were tried.
func toolTable(results []result) table {
	t := table{title: "The tools", head: []string{"tool", "what is done"}}
	for _, one := range tools() {
		if slices.ContainsFunc(results, func(r result) bool { return r.Tool == one.name }) {
			t.add(one.name, one.about)
		}
	}
	return t
}

func lostTable(results []result) table {
	t := table{title: "Requests that were lost, spaced upgrades", text: "The kinds of clients have sums; the first figure is for one upgrade, without the event streams: median (min..max) of the rounds.",
		head: []string{"tool, end of the app", "rounds", "lost for each upgrade", "requests", "upgrades: asked, happened"}}
	for _, kind := range clientKinds {
		t.head = append(t.head, string(kind))
	}
	t.head = append(t.head, "how", "processes left")
	for _, r := range rows(results, spacedName) {
		c := r.counted()
		asked, served := r.asked()
		line := []any{r.name(), len(r.results), bold(r.each(result.lostEach)), c.Requests, fmt.Sprintf("%d, %d", asked, served)}
		for _, kind := range clientKinds {
			line = append(line, c.By[kind])
		}
		t.add(append(line, c.how(), r.each(func(one result) float64 { return float64(one.Left) }))...)
	}
	return t
}

// bold is for what is zero in every round.
func bold(s series) string {
	if slices.Max(s) == 0 {
		return "**0**"
	}
	return s.String()
}

func timeTable(results []result) table {
	t := table{title: "Time to the first answer of the new version", text: "From the request, in ms, and beside a bare start of the same server in the same round.",
		head: []string{"tool, end of the app", "spaced, ms", "bare start, ms", "ratio", "slow start, ms", "bare slow start, ms", "ratio"}}
	slow := rows(results, slowName)
	for _, r := range rows(results, spacedName) {
		line := []any{r.name(), r.times(), r.bare(), r.ratio()}
		for _, s := range slow {
			if s.name() == r.name() {
				line = append(line, s.times(), s.bare(), s.ratio())
			}
		}
		for len(line) < len(t.head) {
			line = append(line, "")
		}
		t.add(line...)
	}
	return t
}

func backTable(results []result) table {
	t := table{title: "Upgrades back to back", text: fmt.Sprintf("%d upgrades, each as soon as the one before it serves. An upgrade whose version did not serve within %s is lost.", backMany, serveTime),
		head: []string{"tool, end of the app", "upgrades: asked, lost", "ms each", "requests lost for each", "how", "processes left"}}
	for _, r := range rows(results, backName) {
		asked, served := r.asked()
		t.add(r.name(), fmt.Sprintf("%d, %s", asked, zeroBold(asked-served)), r.times(), bold(r.each(result.lostEach)), r.counted().how(),
			r.each(func(one result) float64 { return float64(one.Left) }))
	}
	return t
}

func zeroBold(n int) string {
	if n == 0 {
		return "**0**"
	}
	return fmt.Sprint(n)
}

func burstTable(results []result) table {
	t := table{title: "Requests for upgrades in quick succession", text: fmt.Sprintf("%d versions are deployed, one each %s, and an upgrade is requested after each. Requests may be merged; the last version has to serve.", burstMany, burstGap),
		head: []string{"tool, end of the app", "rounds in which the last version serves", "versions that served", "requests lost", "how"}}
	for _, r := range rows(results, burstName) {
		n := 0
		for _, one := range r.results {
			if one.NewServes {
				n++
			}
		}
		t.add(r.name(), fmt.Sprintf("%d of %d", n, len(r.results)), r.each(func(one result) float64 { return float64(one.Served) }),
			bold(r.each(func(one result) float64 { return float64(one.lost()) })), r.counted().how())
	}
	return t
}

func latencyTable(results []result) table {
	t := table{title: "What requests take", text: "During spaced upgrades and after them, beside two seconds without any: busy clients, new connections and kept ones. Requests that failed are not among them.",
		head: []string{"tool, end of the app", "p50, ratio", "p99, ms without", "p99, ms with", "p99, ratio", "max, ratio", "max, ms with"}}
	for _, r := range rows(results, spacedName) {
		figure := func(f func(latencies) float64) series {
			return r.each(func(one result) float64 { return ratio(f(one.Upgrades), f(one.Calm)) })
		}
		t.add(r.name(), figure(p50), r.each(func(one result) float64 { return one.Calm.P99 }), r.each(func(one result) float64 { return one.Upgrades.P99 }),
			figure(p99), figure(longest), r.each(func(one result) float64 { return one.Upgrades.Max }))
	}
	return t
}

func p50(l latencies) float64     { return l.P50 }
func p99(l latencies) float64     { return l.P99 }
func longest(l latencies) float64 { return l.Max }

func supervisorTable(results []result) table {
	t := table{title: "The process that stays", text: fmt.Sprintf("CPU is for one of %d upgrades back to back, until the old processes have ended; memory is its share of resident memory (PSS).", backMany),
		head: []string{"tool", "CPU for an upgrade, ms", "memory, MB", "descriptors before", "after"}}
	for _, r := range rows(results, backName) {
		memory := r.each(func(one result) float64 { return one.Memory }).positive()
		if len(memory) == 0 {
			continue
		}
		t.add(r.Tool, r.each(func(one result) float64 { return one.CPU }).positive(), memory,
			r.each(func(one result) float64 { return float64(one.Descriptors[0]) }), r.each(func(one result) float64 { return float64(one.Descriptors[1]) }))
	}
	return t
}

func badTable(results []result) table {
	t := table{title: "Versions that do not start", text: fmt.Sprintf("What is so %s after the request, and whether a good version serves after it.", badTime),
		head: []string{"tool, end of the app", "the new version", "the old one serves", "a good version serves after it", "requests lost until it did"}}
	for _, f := range []fault{crashes, isNever} {
		for _, r := range rows(results, string(f)) {
			for _, one := range r.results {
				t.add(r.name(), faultText(f), yes(one.OldServes), yes(one.Recovers), one.lost())
			}
		}
	}
	return t
}

func faultText(f fault) string {
	return map[fault]string{crashes: "crashes at its start", isNever: "never serves"}[f]
}

func hangTable(results []result) table {
	t := table{title: "A version that does not end", text: fmt.Sprintf("It ignores the stop signal, and is replaced by a good one. Looked at %s after that.", hangTime),
		head: []string{"tool, end of the app", "the good version serves", "the one that hangs is still there", "requests lost", "how"}}
	for _, r := range rows(results, string(hangs)) {
		for _, one := range r.results {
			t.add(r.name(), yes(one.NewServes), strings.Trim(yes(one.OldServes), "*"), one.lost(), one.how())
		}
	}
	return t
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "**no**"
}

// leftOutTable has what could not be measured.
func leftOutTable(results []result) table {
	t := table{title: "Not measured", head: []string{"tool", "case", "why"}}
	for _, r := range results {
		if r.Failure != "" {
			first, _, _ := strings.Cut(r.Failure, "\n")
			t.add(row{Tool: r.Tool, Ending: r.Ending}.name(), r.Scenario, first)
		}
	}
	return t
}
