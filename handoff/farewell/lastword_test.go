package farewell

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

func mustBeIdle(t *testing.T, f *Farewell, want bool) {
	t.Helper()
	idle, err := f.Idle()
	apptest.Must(t, err)
	if idle != want {
		t.Errorf("idle: %t", idle)
	}
}

// A client that asks again at once does so in the clock tick of the last answer, after which nothing comes for as long as
// the app works.
func TestRequestInTheTickOfAnAnswerIsNoSilence(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		for range 10 {
			w := newWire(t, host)
			for range 3 {
				w.ask(t, get)
				w.send200(t)
			}
			w.ask(t, get)
			f := w.announce(t)
			mustBeIdle(t, f, false)
			w.answer(t, plainOK)
			mustBeIdle(t, f, true)
		}
	}
}

func TestSilentConnectionsAreIdle(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	_, silent := r.speaking(t)
	r.wire(t) // which has never asked
	f := silent.announce(t)
	apptest.Eventually(t, "the client has acknowledged the answer", func() bool {
		idle, err := f.Idle()
		apptest.Must(t, err)
		return idle
	})
	silent.ask(t, get)
	mustBeIdle(t, f, false)
	silent.answer(t, plainOK)
	mustBeIdle(t, f, true)
	apptest.Must(t, f.Release())
	if _, err := f.Idle(); err == nil {
		t.Error("asked after the end")
	}
}
