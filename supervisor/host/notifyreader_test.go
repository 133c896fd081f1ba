package host

import (
	"slices"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

func TestWhatAnAppSaysOfItsEnd(t *testing.T) {
	const main, launcher, helper = 1 << 22, 1<<22 + 1, 1<<22 + 2
	three := 3
	for name, test := range map[string]struct {
		message childproc.Message
		want    []machine.Event
	}{
		"the main process stops":  {childproc.Message{PID: main, Stopping: true}, []machine.Event{machine.Withdrawn{Instance: 7}}},
		"its launcher stops":      {childproc.Message{PID: launcher, Stopping: true}, nil},
		"a helper of it stops":    {childproc.Message{PID: helper, Stopping: true}, nil},
		"a worker has requests":   {childproc.Message{PID: helper, InFlight: &three}, []machine.Event{machine.Tallied{Instance: 7, InFlight: 3}}},
		"it drains":               {childproc.Message{PID: main, Drains: true}, []machine.Event{machine.Exempted{Instance: 7}}},
		"it stops, with requests": {childproc.Message{PID: main, Stopping: true, InFlight: &three}, []machine.Event{machine.Withdrawn{Instance: 7}, machine.Tallied{Instance: 7, InFlight: 3}}},
	} {
		var posted []machine.Event
		e := newNotifyReader(&Host{Post: func(ev machine.Event) { posted = append(posted, ev) }}, 7, nil, launcher)
		e.mains = append(e.mains, main)
		if e.heed(test.message); !slices.Equal(posted, test.want) {
			t.Errorf("%s: %+v, not %+v", name, posted, test.want)
		}
	}
}
