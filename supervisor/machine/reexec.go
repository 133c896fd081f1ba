package machine

import "time"

// pendingReexec is the replacement of grace itself, which is wanted.
type pendingReexec struct {
	requests []int
	since    time.Time
	begun    bool // the shell is at it
	told     bool // the log says why it waits
}

func (ev ReexecRequested) step(m *Machine) {
	switch {
	case m.mode != running:
		m.refuseReexec(asker(ev.Request))
	case m.reexec == nil:
		m.reexec = &pendingReexec{requests: asker(ev.Request), since: m.at}
	default:
		m.reexec.requests = append(m.reexec.requests, asker(ev.Request)...)
	}
}

func (m *Machine) refuseReexec(requests []int) {
	m.say(Report{Fact: ReexecRefused, Why: GraceStopping})
	m.answerAll(requests, Result{Outcome: OutcomeRefused, Why: GraceStopping})
}

// tryReexec waits for the end of what cannot travel.
func (m *Machine) tryReexec() {
	r := m.reexec
	switch {
	case r == nil || r.begun:
	case m.Calm():
		r.begun = true
		m.do(HandOver{})
	default:
		m.hasten()
		m.tellWaiting(r)
	}
}

func (m *Machine) tellWaiting(r *pendingReexec) {
	if r.told {
		return
	}
	r.told = true
	why := NotCalm
	if m.keeping > 0 {
		why = ConnectionsKept
	}
	m.say(Report{Fact: ReexecWaiting, Why: why})
}

func (ReexecDelayed) step(m *Machine) {
	if m.reexec != nil {
		m.reexec.begun = false
	}
	m.watchAnew()
}

// watchAnew is for the time in which no sign of life was heard.
func (m *Machine) watchAnew() {
	for _, i := range m.instances {
		Pinged{}.meet(m, i)
	}
}

func (ev ReexecFailed) step(m *Machine) {
	m.say(Report{Fact: ReexecUnsuccessful, Why: said(ev.Why)})
	m.answerReexec(Result{Outcome: OutcomeFailed, Why: said(ev.Why)})
	m.watchAnew()
}

// step leaves everything as it is: it is another grace's now.
func (ev Reexeced) step(m *Machine) {
	m.say(Report{Fact: ReexecDone, PID: ev.PID})
	m.answerReexec(Result{Outcome: OutcomeReexeced})
	m.leaveAskers()
	m.mode = done
	m.do(Finish{})
}

// leaveAskers is for who waits for an upgrade that another grace process goes on with.
func (m *Machine) leaveAskers() {
	for _, g := range m.generations {
		if g.upgrade != nil {
			m.answerAll(g.upgrade.requests, Result{Outcome: OutcomeReexeced, Generation: g.Number})
		}
	}
	m.leavePromotions(Result{Outcome: OutcomeReexeced})
}

func (m *Machine) answerReexec(r Result) {
	if m.reexec != nil {
		r.Took = m.at.Sub(m.reexec.since)
		m.answerAll(m.reexec.requests, r)
		m.reexec = nil
	}
}
