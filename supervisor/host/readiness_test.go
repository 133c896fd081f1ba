package host

import (
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
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

func TestStartsTakeAsLongAsBefore(t *testing.T) {
	for _, test := range []struct{ elapsed, last, want time.Duration }{
		{0, 0, 2 * time.Millisecond},
		{0, 8 * time.Millisecond, 4 * time.Millisecond},
		{0, 4 * time.Millisecond, 3 * time.Millisecond},
		{time.Second, 2 * time.Second, 25 * time.Millisecond},
		{100 * time.Millisecond, 320 * time.Millisecond, 20 * time.Millisecond},
		{1500 * time.Millisecond, 2 * time.Second, 0},
	} {
		if got := early(test.elapsed, test.last); got != test.want {
			t.Errorf("%v after a start that is to take %v: %v, want %v", test.elapsed, test.last, got, test.want)
		}
	}
}

// A server that grace has not started may listen at more addresses than the app, but the app has to listen at one of them.
func TestServerIsNotReplacedByWhoListensNowhere(t *testing.T) {
	s, _ := steeringOf(t, machine.Foreign)
	v := &readinessCheck{prober: prober{apps: &Host{Steering: s}, app: &InstanceProcess{reader: &notifyReader{}}}}
	if left := v.unopened(nil); len(left) != 1 {
		t.Errorf("an app without a socket has all but %v", left)
	}
	if left := v.unopened([]awaitedSocket{{place: "127.0.0.1:1"}}); len(left) != 0 {
		t.Errorf("an app with another socket has all but %v", left)
	}
}

// An app that has taken its time is ready soon after it has listened, or has said that it is.
func TestLooksFollowWhatTheAppDoes(t *testing.T) {
	for what, c := range map[string]struct {
		does  func(*InstanceProcess, chan struct{})
		moves []bool // at the first pause, and at the second
	}{
		"listen, before its word": {func(app *InstanceProcess, _ chan struct{}) { app.start.MustNotify = true; app.noteListen() }, []bool{false, false}},
		"its word":                {func(app *InstanceProcess, word chan struct{}) { app.start.MustNotify = true; close(word) }, []bool{true, false}},
		"nothing":                 {func(*InstanceProcess, chan struct{}) {}, []bool{false, false}},
		"listen":                  {func(app *InstanceProcess, _ chan struct{}) { app.noteListen() }, []bool{true, false}},
		"listen, again":           {func(app *InstanceProcess, _ chan struct{}) { app.noteListen(); app.noteListen() }, []bool{true, false}},
		"READY=1":                 {func(_ *InstanceProcess, word chan struct{}) { close(word) }, []bool{true, false}},
	} {
		app, word := &InstanceProcess{listened: make(chan struct{}, 1)}, make(chan struct{})
		v := &readinessCheck{prober: prober{apps: &Host{Options: Options{Readiness: Readiness{Mode: ReadyAuto}}}, app: app, ctx: t.Context()}, word: word}
		c.does(app, word)
		for _, want := range c.moves {
			long := time.Now().Add(-time.Hour)
			v.moved = long
			if err := v.nap(1); err != nil || (v.moved != long) != want {
				t.Errorf("%s: moved at %v, %v, want %v", what, v.moved, err, want)
			}
		}
	}
}
