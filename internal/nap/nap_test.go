package nap

import (
	"testing"
	"time"
)

func TestNaps(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 300 * time.Microsecond, 5 * time.Millisecond} {
		begun := time.Now()
		For(d)
		if took := time.Since(begun); took < d {
			t.Errorf("a nap of %v took %v", d, took)
		}
	}
}

func TestTimersAreGivenBack(t *testing.T) {
	for range 3000 { // more than a process may have of them
		if err := wait(1); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkFor is to be compared with what it waits for.
func BenchmarkFor(b *testing.B) {
	for b.Loop() {
		For(200 * time.Microsecond)
	}
}
