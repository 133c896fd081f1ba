package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// A bare start that is late must not make the starts fewer than the upgrades with which they are compared.
func TestRateHoldsWhereADeedIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deeds := 0
		r := rhythm{every: 10 * time.Millisecond, deed: func() {
			if deeds++; deeds == 3 {
				time.Sleep(45 * time.Millisecond)
			}
		}}
		if n := r.keep(time.Now().Add(time.Second)); n != 100 || deeds != n {
			t.Errorf("%d deeds, said to be %d, in a second", deeds, n)
		}
	})
}

func TestPaceIsThatOfTheLastStretch(t *testing.T) {
	if got := (&stretch{deeds: series{10, 50}}).pace(); got != 20*time.Millisecond {
		t.Errorf("%v", got)
	}
}
