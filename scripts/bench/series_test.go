package main

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   series
		want float64
	}{{series{7}, 7}, {series{9, 1}, 5}, {series{5, 100, 1}, 5}, {series{4, 1, 3, 100}, 3.5}} {
		if got := c.of.median(); got != c.want {
			t.Errorf("of %v: %v, not %v", []float64(c.of), got, c.want)
		}
	}
}

// The median of ratios is not the ratio of medians: a slow round is slow for both.
func TestRatiosArePairedByRound(t *testing.T) {
	grace, best := series{2, 30, 4}, series{1, 10, 4}
	if got := grace.over(best); !slices.Equal(got, series{2, 3, 1}) || got.median() != 2 {
		t.Errorf("ratios %v", got)
	}
	if got := grace.minus(best); !slices.Equal(got, series{1, 20, 0}) {
		t.Errorf("differences %v", got)
	}
}
