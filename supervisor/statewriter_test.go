package supervisor

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

func TestStateIsWrittenWhenItHasToBe(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &service{loop: newLoop(testPolicy(), ""), apps: &host.Host{}, runtime: host.RuntimeDir{Path: dir}}
		written := 0
		go func() {
			for request := range s.loop.stateRequests {
				written++
				request.answer <- &savedState{}
			}
		}()
		w := openStateWriter(s)
		defer close(s.loop.stateRequests)
		defer w.end()
		for _, step := range []struct {
			what string
			do   func()
			want int
		}{
			{"at the start", func() {}, 1},
			{"what was noted is there", func() { s.apps.Noted() }, 1},
			{"what can be late", func() { s.loop.aged(); s.loop.aged() }, 1},
			{"what can be late, later", func() { s.loop.aged(); time.Sleep(lateBy) }, 2},
			{"a change, and what can be late", func() { s.loop.aged(); s.loop.changed() }, 3},
			{"what was late is there", func() { time.Sleep(time.Second) }, 3},
			{"the state of now", func() { s.apps.Saved() }, 4},
			{"what is noted", func() { s.apps.Changed(); s.apps.Noted() }, 5},
			{"constantly late", func() {
				for range 30 {
					s.loop.aged()
					time.Sleep(lateBy / 10)
				}
				time.Sleep(lateBy)
			}, 8},
		} {
			step.do()
			if synctest.Wait(); written != step.want {
				t.Errorf("%s: written %d times, want %d", step.what, written, step.want)
			}
		}
	})
}

func TestWhatIsNotedLate(t *testing.T) {
	exited := machine.Exited{Instance: 1}
	for what, c := range map[string]struct {
		event   machine.Event
		actions []machine.Action
		changed bool
		aged    bool
	}{
		"an end":                        {exited, []machine.Action{machine.Report{}}, false, true},
		"an end for which others leave": {exited, []machine.Action{machine.Report{}, machine.Tell{Instance: 2, Signal: syscall.SIGTERM}}, true, false},
		"a start":                       {machine.Started{Instance: 1}, nil, true, false},
		"a ping":                        {machine.Pinged{Instance: 1}, nil, false, false},
	} {
		l := newLoop(testPolicy(), "")
		changed, aged := false, false
		l.changed, l.aged = func() { changed = true }, func() { aged = true }
		if l.note(c.event, c.actions); changed != c.changed || aged != c.aged {
			t.Errorf("%s: changed %v, late %v", what, changed, aged)
		}
	}
}
