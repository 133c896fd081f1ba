package supervisor

import "time"

// host does what the machine decides about processes. Its methods are called by
// the loop alone and do not block; each posts what comes of it.
type host interface {
	prepare(prepare)
	abandon(generation int)
	start(start)
	dismiss(instance int)
	tell(tell)
	tellRest(tellRest)
	follow(follow)
	kill(instance int)
	reap(reap)
	release(instance int)
	retire(generation int)
	count(count)
	steer(generation int)
	observe(observe)
}

// loop is the one goroutine that owns the machine.
type loop struct {
	machine *machine
	events  chan event
	done    chan struct{} // closed when nobody takes events any more
	timers  *timers
	host    host
	journal *journal
	status  int
	over    bool
}

func newLoop(p Policy, j *journal) *loop {
	l := &loop{machine: newMachine(p), events: make(chan event), done: make(chan struct{}), journal: j}
	l.timers = newTimers(l.post)
	return l
}

// post hands an event to the loop. It may be called from any goroutine but the
// loop's own, and returns at once when the loop has ended.
func (l *loop) post(ev event) {
	select {
	case l.events <- ev:
	case <-l.done:
	}
}

// run returns the exit status when the machine has finished.
func (l *loop) run() int {
	defer close(l.done)
	defer l.timers.stop()
	l.performAll(l.machine.begin(time.Now()))
	for !l.over {
		ev := <-l.events
		if expired, ok := ev.(timerExpired); ok {
			l.timers.disarm(expired.timer.number)
		}
		l.performAll(l.machine.step(time.Now(), ev))
	}
	return l.status
}

func (l *loop) performAll(actions []action) {
	for _, a := range actions {
		l.perform(a)
	}
}

func (l *loop) perform(a action) {
	switch a := a.(type) {
	case prepare:
		l.host.prepare(a)
	case abandon:
		l.host.abandon(a.generation)
	case start:
		l.host.start(a)
	case dismiss:
		l.host.dismiss(a.instance)
	case tell:
		l.host.tell(a)
	case tellRest:
		l.host.tellRest(a)
	case follow:
		l.host.follow(a)
	case kill:
		l.host.kill(a.instance)
	case reap:
		l.host.reap(a)
	case release:
		l.host.release(a.instance)
	case retire:
		l.host.retire(a.generation)
	case count:
		l.host.count(a)
	case steer:
		l.host.steer(a.generation)
	case observe:
		l.host.observe(a)
	case arm:
		l.timers.arm(a)
	case disarm:
		l.timers.disarm(a.timer.number)
	case report:
		l.journal.write(a)
	case finish:
		l.status, l.over = a.status, true
	}
}
