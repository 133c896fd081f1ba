package supervisor

import (
	"slices"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// performer does what the machine decides: the loop what is about itself, the host what is about processes.
type performer struct {
	*loop
	*timers
	*callers
	*host.Host
}

// loop is the one goroutine that owns the machine.
type loop struct {
	machine *machine.Machine
	events  chan machine.Event
	// statusRequests has those who want to know the status. They are no events: they change
	// nothing, and are served while grace is handed over too.
	statusRequests chan chan<- control.Status
	// stateRequests has the one who saves the state.
	stateRequests chan stateRequest
	save          func(*host.Storing) *savedState
	changed       func()        // is told when the state may have changed
	aged          func()        // is told when it may have in what can be written late
	done          chan struct{} // closed when nobody takes events any more
	timers        *timers
	performer     machine.Performer
	callers       *callers
	// audience is told what happens.
	audience []audience
	// pulse is when beat is to show that the loop does not hang; nil is never.
	pulse <-chan time.Time
	beat  func()
	begin func() []machine.Action // what is done first
	// successor is who takes over when that is asked for; nil if nobody can.
	successor successor
	leaving   bool
	status    int
	over      bool
}

// stateRequest is from the one who saves the state.
type stateRequest struct {
	storing *host.Storing
	answer  chan<- *savedState
}

// successor is the way to another grace process that takes over.
type successor interface {
	// rest and suspend stop what would be at work in both grace processes; it has stopped when the
	// channel is closed. resume lets it go on.
	rest() <-chan struct{}
	suspend() <-chan struct{}
	resume()
	// handOver gives away what there is. The loop stands still meanwhile.
	handOver(machine.Snapshot, *parting) machine.Event
}

// audience hears every line, in the loop's goroutine, and does not block.
type audience interface {
	hear(at time.Time, l line)
}

func newLoop(p machine.Policy, output string, a ...audience) *loop {
	l := &loop{machine: machine.NewMachine(p), events: make(chan machine.Event), statusRequests: make(chan chan<- control.Status), stateRequests: make(chan stateRequest), changed: func() {}, aged: func() {}, done: make(chan struct{}), callers: newCallers(output)}
	l.timers = newTimers(l.post)
	l.begin = func() []machine.Action { return l.machine.Begin(time.Now()) }
	l.audience = append(a, l.callers)
	return l
}

// post hands an event to the loop. It may be called from any goroutine but the
// loop's own, and returns at once when the loop has ended.
func (l *loop) post(ev machine.Event) { l.offer(ev) }

// offer is a post that reports whether the event was taken.
func (l *loop) offer(ev machine.Event) bool {
	select {
	case l.events <- ev:
		return true
	case <-l.done:
		return false
	}
}

// run returns the exit status when the machine has finished.
func (l *loop) run() int {
	defer close(l.done)
	defer l.timers.stop()
	defer l.callers.close()
	l.performAll(l.begin())
	for !l.over {
		l.next(nil)
		for l.leaving && !l.over {
			l.leave()
		}
	}
	return l.status
}

// next takes one event, and reports whether that was the end of a wait.
func (l *loop) next(end <-chan struct{}) bool {
	select {
	case ev := <-l.events:
		l.take(ev)
	case answer := <-l.statusRequests:
		answer <- statusMessage(l.snapshot())
	case request := <-l.stateRequests:
		request.answer <- l.save(request.storing)
	case <-l.pulse:
		l.beat()
	case <-end:
		return true
	}
	return l.over
}

func (l *loop) snapshot() machine.Snapshot { return l.machine.Snapshot(l.timers.due, reasonText) }

// leave hands over to another grace process, unless something comes in between that cannot
// travel: it is seen by the machine being calm no more.
func (l *loop) leave() {
	l.leaving = false
	defer l.successor.resume()
	for _, still := range []func() <-chan struct{}{l.successor.rest, l.successor.suspend} {
		for end := still(); !l.next(end); {
		}
		if !l.machine.Calm() {
			l.take(machine.ReexecDelayed{})
			return
		}
	}
	l.part(l.snapshot())
}

// parting is what the loop and the handover agree by: either an event is taken, or the other grace process is let go on.
type parting struct {
	cut    chan struct{} // closed when there is something else to do
	agreed chan struct{}
}

// agree comes before what cannot be undone. It reports false if the handover was cut.
func (p *parting) agree() bool {
	select {
	case p.agreed <- struct{}{}:
		return true
	case <-p.cut:
		return false
	}
}

const (
	// partPatience is how long events wait for a handover. A good one takes a fraction of it.
	partPatience = time.Second
	// partQuiet is how long none comes before a handover that was cut is begun again.
	partQuiet = 50 * time.Millisecond
)

// part stands still while another grace process gets ready, but not for longer than deadlines can wait.
func (l *loop) part(state machine.Snapshot) {
	p := &parting{make(chan struct{}), make(chan struct{})}
	outcome := make(chan machine.Event, 1)
	go func() { outcome <- l.successor.handOver(state, p) }()
	patience, agreed, events := time.After(partPatience), p.agreed, chan machine.Event(nil)
	var held machine.Event
	for {
		select {
		case answer := <-l.statusRequests:
			answer <- statusMessage(l.snapshot())
		case <-l.pulse:
			l.beat()
		case <-patience:
			if agreed != nil {
				events = l.events
			}
		case held = <-events:
			events, agreed = nil, nil
			close(p.cut)
		case <-agreed:
			events, agreed = nil, nil
		case ev := <-outcome:
			l.take(ev)
			if held != nil {
				l.take(held)
				l.catchUp()
			}
			return
		}
	}
}

// catchUp returns when no event waits.
func (l *loop) catchUp() {
	for over := l.over; !over; {
		quiet := make(chan struct{})
		timer := time.AfterFunc(partQuiet, func() { close(quiet) })
		over = l.next(quiet)
		timer.Stop()
	}
}

// take has the machine decide, but for what is about the loop alone.
func (l *loop) take(ev machine.Event) {
	switch e := ev.(type) {
	case served:
		e.log(e.captured)
		return
	case asked:
		ev = l.callers.admit(e)
	case host.Adopted:
		e.Follow()
		ev = e.Moved
	case machine.TimerExpired:
		l.timers.disarm(e.Timer.Number)
	}
	actions := l.machine.Step(time.Now(), ev)
	l.performAll(actions)
	l.note(ev, actions)
}

// note says how soon a grace process that is started after the end of this one has to know of an event.
func (l *loop) note(ev machine.Event, actions []machine.Action) {
	switch ev.(type) {
	case machine.Pinged, machine.Tallied, machine.Counted, machine.Unreadied, machine.Noticed:
		return // they come often, and it need not know of them
	case machine.Exited, machine.Emptied, machine.Withdrawn, machine.Described, machine.Exempted, machine.Notified:
		// It sees the end of a process itself, and can do without what an app has said a moment ago, but not without the signal
		// that another one has got for it.
		if !slices.ContainsFunc(actions, isSignal) {
			l.aged()
			return
		}
	}
	l.changed()
}

func isSignal(a machine.Action) bool {
	switch a.(type) {
	case machine.Tell, machine.TellGroup, machine.TellRest, machine.Kill:
		return true
	}
	return false
}

func (l *loop) performAll(actions []machine.Action) {
	for _, a := range actions {
		a.Perform(l.performer)
	}
}

func (l *loop) HandOver(machine.HandOver) { l.leaving = true }

func (l *loop) Finish(f machine.Finish) { l.status, l.over = f.Status, true }

func (l *loop) Report(r machine.Report) {
	now, said := time.Now(), worded(r)
	for _, a := range l.audience {
		a.hear(now, said)
	}
}
