package host

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"golang.org/x/sys/unix"
)

// looks answers each look for who has the sockets: true is that nobody was seen.
func looks(answers ...bool) func([]uint64) []uint64 {
	return func(sockets []uint64) []uint64 {
		nobody := answers[0]
		answers = answers[1:]
		if nobody {
			return sockets
		}
		return nil
	}
}

func TestOneLookDoesNotTakeASocketForClosed(t *testing.T) {
	for _, test := range []struct {
		looks []bool
		want  bool
	}{{[]bool{false}, true}, {[]bool{true, false}, true}, {[]bool{true, true}, false}} {
		if got := Live(looks(test.looks...))(steering.InstanceKey{}, 1); got != test.want {
			t.Errorf("after %v it is live: %v", test.looks, got)
		}
	}
}

func TestClosedSocketsAreForgottenAfterSomeTime(t *testing.T) {
	for name, test := range map[string]struct {
		looks []bool
		after time.Duration
		left  int
		more  bool
	}{
		"looked once":                  {[]bool{true}, 0, 1, true},
		"seen in between":              {[]bool{true, false, true}, 0, 1, true},
		"seen at last":                 {[]bool{true, false}, 0, 1, false},
		"not for long enough":          {[]bool{true, true, true}, time.Hour, 1, true},
		"nobody's in two looks in row": {[]bool{true, false, true, true}, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			steering, inode := steeringOfOne(t)
			closed := newClosedSockets(&Host{Steering: steering, Unowned: looks(test.looks...)}, func() int { return 1 })
			more := false
			for range test.looks {
				more = closed.forget([]uint64{inode}, test.after)
			}
			if left := len(steering.Sockets(1)); left != test.left || more != test.more {
				t.Errorf("%d sockets left, more: %v", left, more)
			}
		})
	}
}

// steeringOfOne has one socket, of generation 1; steeringOf one of another generation.
func steeringOfOne(t *testing.T) (*steering.Steering, uint64) { return steeringOf(t, 1) }

func steeringOf(t *testing.T, generation int) (*steering.Steering, uint64) {
	t.Helper()
	address, err := socket.ParseAddress("web=127.0.0.1:0")
	s, err2 := steering.NewSteering(nil)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	fd, err := s.Make(steering.InstanceKey{Generation: generation}, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return s, s.Sockets(generation)[0].Inode
}

func TestListingIsShort(t *testing.T) {
	names := strings.Fields("a b c d e f g h i j k l")
	if got := listing(names[:10]); got != "a, b, c, d, e, f, g, h, i, j" {
		t.Error(got)
	}
	if got := listing(names); got != "a, b, c, d, e, f, g, h, i, j and 2 more" {
		t.Error(got)
	}
}
