package binomial

import "testing"

func TestBounds(t *testing.T) {
	if low, high := Bounds(10000, 0.5, 1e-12); low < 4630 || low > 4670 || high != 10000-low {
		t.Errorf("%d to %d", low, high)
	}
}
