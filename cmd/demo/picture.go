package demo

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/guptarohit/asciigraph"
)

const (
	pictureColumns = 68
	leastColumns   = 20
	labelColumns   = 8 // to the left of the picture
	graphRows      = 10
	lowest         = 0.1 // milliseconds; what is faster is drawn there
)

// picture is the latency of each moment on a logarithmic scale, with a mark under each upgrade.
func (r *record) picture() []string {
	legend := "ms   " + r.paint.sgr("32", "─ median") + "   " + r.paint.sgr("35", "─ slowest") + "   ▲ upgrade"
	rows := append(append([]string{legend}, r.graph()...), r.axis())
	if len(r.beside.open) > 0 {
		rows = append(rows, r.paint.faint(r.beside.drain(r.columns)))
		if r.width == fullWidth {
			rows[0] += "   " + r.paint.faint("█") + " plain app: old connections"
		}
	}
	return rows
}

// scale gives each factor of ten the same whole number of rows, so that the labels are alike in each.
func (r *record) scale() (top float64, rows int) {
	top = 100
	for _, m := range r.moments {
		for m.slowest > top {
			top *= 10
		}
	}
	decades := int(math.Round(math.Log10(top / lowest)))
	return top, (graphRows - 1) / decades * decades
}

func (r *record) graph() []string {
	top, rows := r.scale()
	medians, slowest := r.series()
	colors := []asciigraph.AnsiColor{asciigraph.Default, asciigraph.Default}
	if r.paint.on {
		colors = []asciigraph.AnsiColor{asciigraph.Purple, asciigraph.Green}
	}
	text := asciigraph.PlotMany([][]float64{slowest, medians},
		asciigraph.Height(rows),
		asciigraph.LowerBound(math.Log10(lowest)),
		asciigraph.UpperBound(math.Log10(top)),
		asciigraph.YAxisValueFormatter(func(v float64) string { return fmt.Sprintf("%5s", short(math.Pow(10, v))) }),
		asciigraph.SeriesColors(colors...))
	graph := strings.Split(text, "\n")
	for len(graph) < graphRows {
		graph = append([]string{""}, graph...)
	}
	return graph
}

// series are the logarithms to draw. The graph draws a line from each point to the next, so that the last one is repeated.
func (r *record) series() (medians, slowest []float64) {
	for _, m := range r.moments {
		medians = append(medians, math.Log10(max(lowest, m.median)))
		slowest = append(slowest, math.Log10(max(lowest, m.slowest)))
	}
	if len(medians) == 0 {
		return []float64{math.NaN()}, []float64{math.NaN()}
	}
	last := len(medians) - 1
	return append(medians, medians[last]), append(slowest, slowest[last])
}

// axis has a mark in the column of each upgrade.
func (r *record) axis() string {
	marks := []rune(strings.Repeat("─", r.columns))
	for _, u := range r.upgrades {
		marks[min(r.columns-1, int(u.began/r.column()))] = '▲'
	}
	return "       └" + string(marks)
}

// short writes a number with two or three digits.
func short(v float64) string {
	switch {
	case v < 9.95:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// brief writes a duration in the unit that suits it.
func brief(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000)
	}
	return seconds(d)
}

// thousands writes a number with commas.
func thousands(n uint64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
