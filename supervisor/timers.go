package supervisor

import (
	"math/rand/v2"
	"time"

	"github.com/gracerun/grace/supervisor/deadline"
	"github.com/gracerun/grace/supervisor/machine"
)

// timers are the armed timers of the machine. They belong to the loop.
type timers struct {
	armed map[int]alarm
	post  func(machine.Event)
}

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
	if alarm, ok := t.armed[number]; ok {
		deadline.Stop(alarm.Timer)
		delete(t.armed, number)
	}
}

// due is when a timer expires, and zero for one that is not armed.
func (t *timers) due(of machine.Timer) time.Time { return t.armed[of.Number].due }

func (t *timers) stop() {
	for number := range t.armed {
		t.disarm(number)
	}
}
