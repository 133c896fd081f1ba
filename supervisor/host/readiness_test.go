package host

import (
	"testing"
	"time"
)

func TestPauseAfter(t *testing.T) {
	for _, test := range []struct {
		elapsed time.Duration
		sockets int
		want    time.Duration
	}{
		{0, 1, 500 * time.Microsecond},
		{400 * time.Millisecond, 1, 4 * time.Millisecond},
		{time.Minute, 1, 25 * time.Millisecond},
		{0, 1000, 50 * time.Millisecond},
		{time.Minute, 300, 25 * time.Millisecond},
	} {
		if got := pauseAfter(test.elapsed, test.sockets); got != test.want {
			t.Errorf("after %v with %d sockets: %v, want %v", test.elapsed, test.sockets, got, test.want)
		}
	}
}
