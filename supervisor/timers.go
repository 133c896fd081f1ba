package supervisor

import (
	"math/rand/v2"
	"time"
)

// timers are the armed timers of the machine. They belong to the loop.
type timers struct {
	armed map[int]*time.Timer
	post  func(event)
}

func newTimers(post func(event)) *timers {
	return &timers{armed: map[int]*time.Timer{}, post: post}
}

func (t *timers) arm(a arm) {
	after := a.after
	if a.jittered {
		after += rand.N(after/2 + 1)
	}
	t.armed[a.timer.number] = time.AfterFunc(after, func() { t.post(timerExpired{a.timer}) })
}

func (t *timers) disarm(number int) {
	if timer, ok := t.armed[number]; ok {
		timer.Stop()
		delete(t.armed, number)
	}
}

func (t *timers) stop() {
	for number := range t.armed {
		t.disarm(number)
	}
}
