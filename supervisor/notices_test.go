package supervisor

import (
	"slices"
	"testing"

	"github.com/gracerun/grace/childproc"
)

func TestWhatAnAppSaysOfItsEnd(t *testing.T) {
	const main, launcher, helper = 1 << 22, 1<<22 + 1, 1<<22 + 2
	three := 3
	for name, test := range map[string]struct {
		message childproc.Message
		want    []event
	}{
		"the main process stops":  {childproc.Message{PID: main, Stopping: true}, []event{withdrawn{7}}},
		"its launcher stops":      {childproc.Message{PID: launcher, Stopping: true}, nil},
		"a helper of it stops":    {childproc.Message{PID: helper, Stopping: true}, nil},
		"a worker has requests":   {childproc.Message{PID: helper, InFlight: &three}, []event{tallied{7, 3}}},
		"it stops, with requests": {childproc.Message{PID: main, Stopping: true, InFlight: &three}, []event{withdrawn{7}, tallied{7, 3}}},
	} {
		var posted []event
		e := newEar(&apps{post: func(ev event) { posted = append(posted, ev) }}, 7, nil, launcher)
		e.mains = append(e.mains, main)
		if e.heed(test.message); !slices.Equal(posted, test.want) {
			t.Errorf("%s: %+v, not %+v", name, posted, test.want)
		}
	}
}
