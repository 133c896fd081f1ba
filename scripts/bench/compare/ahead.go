package compare

import (
	"fmt"
	"slices"
	"strings"
)

// measure is a figure of which less is better.
type measure struct {
	name, unit string
	scenario   string
	of         func(row) series
	file       string  // of its plot
	from       float64 // where the axis begins
	sameApp    bool    // compared only where the same kind of app runs: the bare start of another server is another one
}

func measures() []measure {
	lost := func(r row) series { return r.each(result.lostEach) }
	late := func(r row) series {
		return r.each(func(one result) float64 { return ratio(one.Upgrades.P99, one.Calm.P99) })
	}
	cpu := func(r row) series { return r.each(func(one result) float64 { return one.CPU }).positive() }
	memory := func(r row) series { return r.each(func(one result) float64 { return one.Memory }).positive() }
	const beside = "times as long"
	return []measure{
		{"requests lost for each spaced upgrade", "requests", spacedName, lost, "lost.svg", 0, false},
		{"requests lost for each upgrade back to back", "requests", backName, lost, "lost-back-to-back.svg", 0, false},
		{"time of a spaced upgrade, beside a bare start", beside, spacedName, row.ratio, "time.svg", 0, true},
		{"time of an upgrade of an app that is slow to start, beside a bare start", beside, slowName, row.ratio, "time-slow.svg", 0, true},
		{"p99 during spaced upgrades, beside none", beside, spacedName, late, "p99.svg", 0, false},
		{"CPU of the process that stays, for an upgrade", "ms", backName, cpu, "cpu.svg", 0, false},
		{"memory of the process that stays", "MB", backName, memory, "memory.svg", 0, false},
	}
}

func (r row) isGrace() bool { return strings.HasPrefix(r.Tool, "grace ") }

// isDefault is of grace without further flags.
func (r row) isDefault() bool { return r.Tool == "grace held" || r.Tool == "grace captured" }

// notAhead says in which measures another tool is better than grace at its best, with the same kind of app.
func notAhead(results []result) table {
	t := table{title: "Where grace is ahead, and where not", text: "Medians: grace held or captured, whichever is better, and the best other tool with the same end of the app. A server that ends in its own way is compared with `shutdown`, but for the time of an upgrade: its bare start is another one.",
		head: []string{"measure", "end of the app", "grace", "best other tool", "grace is ahead"}}
	for _, m := range measures() {
		for _, end := range everyEnding {
			if line := m.compare(rows(results, m.scenario), end); line != nil {
				t.add(line...)
			}
		}
	}
	return t
}

func (m measure) compare(all []row, end ending) []any {
	grace, graceName := m.best(all, func(r row) bool { return r.isDefault() && r.Ending == end })
	other, otherName := m.best(all, func(r row) bool {
		return !r.isGrace() && (r.Ending == end || r.Ending == byItself && end == usual && !m.sameApp)
	})
	if graceName == "" || otherName == "" {
		return nil
	}
	return []any{m.name, end, fmt.Sprintf("%s (%s)", short(grace), graceName), fmt.Sprintf("%s (%s)", short(other), otherName), verdict(grace, other)}
}

// verdict takes figures that look alike for equal.
func verdict(grace, other float64) string {
	switch {
	case short(grace) == short(other):
		return "equal"
	case grace < other:
		return "yes"
	}
	return "**no**"
}

func (m measure) best(all []row, fits func(row) bool) (least float64, name string) {
	for r := range slices.Values(all) {
		s := m.of(r)
		if !fits(r) || len(s) == 0 {
			continue
		}
		if v := s.median(); name == "" || v < least {
			least, name = v, r.Tool
		}
	}
	return least, name
}
