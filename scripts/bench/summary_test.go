package main

import "testing"

func TestAims(t *testing.T) {
	for _, c := range []struct {
		aim, measured float64
		want          string
	}{{1.15, 1.15, "met"}, {1.15, 1.16, "missed"}, {0, 0, "met"}, {0, 1, "missed"}} {
		if got := (figure{aim: c.aim, measured: c.measured}).verdict(); got != c.want {
			t.Errorf("%v where at most %v is wanted: %s", c.measured, c.aim, got)
		}
	}
}
