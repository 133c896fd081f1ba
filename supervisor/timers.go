package supervisor

import (
	"math/rand/v2"
	"time"
)

// timers are the armed timers of the machine. They belong to the loop.
type timers struct {
	armed map[int]alarm
	post  func(event)
}

type alarm struct {
	*time.Timer
	due time.Time
}

func newTimers(post func(event)) *timers {
	return &timers{armed: map[int]alarm{}, post: post}
}

func (t *timers) arm(a arm) {
	after := a.after
	if a.jittered {
		after += rand.N(after/2 + 1)
	}
	t.armed[a.timer.number] = alarm{time.AfterFunc(after, func() { t.post(timerExpired{a.timer}) }), time.Now().Add(after)}
}

func (t *timers) disarm(number int) {
	if alarm, ok := t.armed[number]; ok {
		alarm.Stop()
		delete(t.armed, number)
	}
}

// due is when a timer expires, and zero for one that is not armed.
func (t *timers) due(of timer) time.Time { return t.armed[of.number].due }

func (t *timers) stop() {
	for number := range t.armed {
		t.disarm(number)
	}
}
