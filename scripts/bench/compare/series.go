package compare

import (
	"fmt"
	"slices"
)

// series is one figure, measured again and again.
type series []float64

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (s series) least() float64 { return slices.Min(s) }
func (s series) most() float64  { return slices.Max(s) }

// String is the median with the smallest and the largest value, or a dash where nothing was measured.
func (s series) String() string {
	if len(s) == 0 {
		return "-"
	}
	low, high := s.least(), s.most()
	if low == high {
		return short(low)
	}
	return fmt.Sprintf("%s (%s..%s)", short(s.median()), short(low), short(high))
}

// short has the digits that say something.
func short(v float64) string {
	switch {
	case v == float64(int(v)), v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// row is what was measured of one tool with one kind of server, in one case.
type row struct {
	Tool    string
	Ending  ending
	results []result
}

// name is that of the tool, with the kind of server where there are several.
func (r row) name() string {
	if r.Ending == byItself {
		return r.Tool
	}
	return fmt.Sprintf("%s, %s", r.Tool, r.Ending)
}

// rows are in the order of the tools and of their endings. A task that failed has none.
func rows(results []result, scenario string) []row {
	var all []row
	for _, t := range tools() {
		for _, end := range t.endings {
			r := row{Tool: t.name, Ending: end}
			for _, one := range results {
				if one.Tool == t.name && one.Ending == end && one.Scenario == scenario && one.Failure == "" {
					r.results = append(r.results, one)
				}
			}
			if len(r.results) > 0 {
				all = append(all, r)
			}
		}
	}
	return all
}

// each takes one figure of each round.
func (r row) each(figure func(result) float64) series {
	var s series
	for _, one := range r.results {
		s = append(s, figure(one))
	}
	return s
}

// positive is without the rounds that have no figure.
func (s series) positive() series {
	return slices.DeleteFunc(slices.Clone(s), func(v float64) bool { return v <= 0 })
}

func (r row) times() (s series) {
	for _, one := range r.results {
		s = append(s, one.Times...)
	}
	return s
}

func (r row) bare() (s series) {
	for _, one := range r.results {
		s = append(s, one.Bare...)
	}
	return s
}

// ratio is of each round's medians.
func (r row) ratio() series {
	return r.each(func(one result) float64 {
		if len(one.Times) == 0 || len(one.Bare) == 0 {
			return 0
		}
		return series(one.Times).median() / series(one.Bare).median()
	}).positive()
}

// counted sums all rounds.
func (r row) counted() counted {
	sum := newCounted()
	for _, one := range r.results {
		sum.add(one.counted)
	}
	return sum
}

func (r row) asked() (asked, served int) {
	for _, one := range r.results {
		asked += one.Asked
		served += one.Served
	}
	return asked, served
}
