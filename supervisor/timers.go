package supervisor

import (
	"math/rand/v2"
	"time"

	"github.com/gracerun/grace/supervisor/deadline"
	"github.com/gracerun/grace/supervisor/machine"
)

// timers are the armed timers of the machine. They belong to the loop.
type timers struct {
	armed   map[int]alarm
	stopped []*time.Timer // that Go still keeps
	post    func(machine.Event)
}

// mostStopped is for an app that always has a timer, such as that of --watchdog.
const mostStopped = 64

type alarm struct {
	*time.Timer
	due time.Time
}

func newTimers(post func(machine.Event)) *timers {
	return &timers{armed: map[int]alarm{}, post: post}
}

func (t *timers) Disarm(d machine.Disarm) { t.disarm(d.Timer.Number) }

func (t *timers) Arm(a machine.Arm) {
	after := a.After
	if a.Jittered {
		after += rand.N(after/2 + 1)
	}
	t.armed[a.Timer.Number] = alarm{time.AfterFunc(after, func() { t.post(machine.TimerExpired{Timer: a.Timer}) }), time.Now().Add(after)}
}

func (t *timers) disarm(number int) {
	alarm, ok := t.armed[number]
	if !ok {
		return
	}
	delete(t.armed, number)
	if alarm.Stop() {
		t.stopped = append(t.stopped, alarm.Timer)
	}
	if len(t.armed) == 0 || len(t.stopped) == mostStopped {
		deadline.Forget(t.stopped...)
		t.stopped = nil
	}
}

// due is when a timer expires, and zero for one that is not armed.
func (t *timers) due(of machine.Timer) time.Time { return t.armed[of.Number].due }

func (t *timers) stop() {
	for number := range t.armed {
		t.disarm(number)
	}
}
