package main

import (
	"slices"
	"testing"
	"time"
)

// counted is replaced in no time, and says when.
type counted struct {
	number int
	order  *[]int
}

func (c *counted) serves() string { return "" }
func (c *counted) stop()          {}
func (c *counted) replace() time.Duration {
	*c.order = append(*c.order, c.number)
	return time.Duration(len(*c.order)) * time.Millisecond
}

func TestEachRoundHasAllCompetitorsOnce(t *testing.T) {
	const rounds, repeats = 50, 2
	var order []int
	var all []competitor
	for n := range 3 {
		all = append(all, competitor{replacement: &counted{n, &order}})
	}
	results := contest{rounds: rounds, repeats: repeats}.measure(all)
	orders := map[[3]int]bool{}
	for round := range slices.Chunk(order, len(all)*repeats) {
		orders[[3]int{round[0], round[2], round[4]}] = true
		if slices.Sort(round); !slices.Equal(round, []int{0, 0, 1, 1, 2, 2}) {
			t.Fatalf("a round of %v", round)
		}
	}
	if len(orders) < 2 {
		t.Error("the order of the rounds is always the same")
	}
	for n, r := range results {
		if len(r.took) != rounds*repeats {
			t.Errorf("competitor %d was replaced %d times", n, len(r.took))
		}
	}
}
