package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// series is one figure, measured again and again.
type series []float64

func (s *series) add(v float64) { *s = append(*s, v) }

// addTime adds milliseconds.
func (s *series) addTime(d time.Duration) { s.add(float64(d) / float64(time.Millisecond)) }

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// String is the median with the smallest and the largest value.
func (s series) String() string {
	return fmt.Sprintf("%.2f\t(%.2f..%.2f)", s.median(), slices.Min(s), slices.Max(s))
}

// minus pairs what was measured in the same round.
func (s series) minus(other series) series {
	return s.paired(other, func(a, b float64) float64 { return a - b })
}

func (s series) over(other series) series {
	return s.paired(other, func(a, b float64) float64 { return a / b })
}

func (s series) paired(other series, f func(a, b float64) float64) series {
	var pairs series
	for i := range s {
		pairs.add(f(s[i], other[i]))
	}
	return pairs
}

// table prints aligned lines; cells are separated by tabs.
type table struct{ w *tabwriter.Writer }

func newTable(title, head string) table {
	fmt.Printf("\n%s\n\n", title)
	return beginTable(head)
}

func beginTable(head string) table {
	t := table{tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
	t.line("%s", head)
	return t
}

func (t table) line(format string, cells ...any) { fmt.Fprintf(t.w, "  "+format+"\n", cells...) }

func (t table) end() { t.w.Flush() }
