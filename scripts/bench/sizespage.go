package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gracerun/grace/scripts/bench/chart"
)

func sizesFlags(args []string) (page string, err error) {
	flags := flag.NewFlagSet("sizes", flag.ContinueOnError)
	flags.StringVar(&page, "write", "", "the page to write, with plots in a folder beside it")
	return page, flags.Parse(args)
}

// sizesMeasure is one of the figures, and how it is called.
type sizesMeasure struct {
	name string
	of   func(*sizeFigures) series
}

var sizesMeasures = []sizesMeasure{
	{"from HUP until the new generation is ready, ms", func(m *sizeFigures) series { return m.ready }},
	{"CPU time of grace for the upgrade, ms", func(m *sizeFigures) series { return m.cpu }},
	{"resident memory of grace after it, MB", func(m *sizeFigures) series { return m.memory }},
	{"descriptors of grace after it", func(m *sizeFigures) series { return m.descriptors }},
}

// showSizes prints the tables, or writes the page.
func (b bench) showSizes(page string) {
	begun, here := time.Now(), machine()
	all := b.sizes()
	folder := strings.TrimSuffix(page, filepath.Ext(page))
	text := sizesText(all, filepath.Base(folder), fmt.Sprintf("%s. %s, %s.", begun.Format(time.DateOnly), here, time.Since(begun).Round(time.Second)))
	if page == "" {
		fmt.Print(text)
		return
	}
	var charts []chart.Chart
	for _, r := range all {
		charts = append(charts, r.charts()...)
	}
	check(chart.Draw(folder, charts))
	check(os.WriteFile(page, []byte(sizesBeginning+text), 0o644))
}

const sizesBeginning = `# What an upgrade costs by size

` + "`go run ./scripts/bench sizes --write docs/sizes.md`" + ` measures one upgrade of the bench's Go app (package drain) for each size, three times in random order; each time with a new grace process, but for the
number of upgrades, which one process does. Median (smallest..largest). Memory is that at the end of the
upgrade: a grace process that is idle for three seconds gives 11 MB back. [Measurements](measurements.md) has what one upgrade costs at the least.

`

func sizesText(all []sizedResult, folder, where string) string {
	var b strings.Builder
	b.WriteString(where + "\n")
	for _, r := range all {
		fmt.Fprintf(&b, "\n## By %s\n\n| |", r.of)
		for _, m := range sizesMeasures {
			fmt.Fprintf(&b, " %s |", m.name)
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(sizesMeasures)) + "\n")
		for n := range r.sizes {
			b.WriteString(r.row(n))
		}
		b.WriteString("\n" + chart.Markdown(folder, r.charts()))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (r sizedResult) row(n int) string {
	cells := fmt.Sprintf("| %d |", r.sizes[n])
	for _, m := range sizesMeasures {
		s := m.of(&r.figures[n])
		cells += fmt.Sprintf(" %s (%s..%s) |", short(s.median()), short(slices.Min(s)), short(slices.Max(s)))
	}
	return cells + "\n"
}

// short has three digits, or those before the point.
func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// charts are one of times and one of memory.
func (r sizedResult) charts() []chart.Chart {
	return []chart.Chart{
		{File: r.name + "-time.svg", Title: "One upgrade, by " + r.of, Unit: "ms", Across: r.of, Lines: []chart.Line{
			r.line("until ready", func(m *sizeFigures) series { return m.ready }), r.line("CPU time of grace", func(m *sizeFigures) series { return m.cpu }),
		}},
		{File: r.name + "-memory.svg", Title: "Memory of grace after it", Unit: "MB", Across: r.of, Lines: []chart.Line{
			r.line("", func(m *sizeFigures) series { return m.memory }),
		}},
	}
}

func (r sizedResult) line(name string, of func(*sizeFigures) series) chart.Line {
	l := chart.Line{Name: name}
	for n, size := range r.sizes {
		s := of(&r.figures[n])
		l.Points = append(l.Points, chart.Point{X: float64(size), Value: s.median(), Low: slices.Min(s), High: slices.Max(s)})
	}
	return l
}
