package supervisor

import (
	"time"
)

// relay is the replacement of grace itself, which is wanted.
type relay struct {
	requests []int
	since    time.Time
	begun    bool // the shell is at it
	told     bool // the log says why it waits
}

func (m *machine) onReexecRequested(ev reexecRequested) {
	switch {
	case m.mode != running:
		m.refuseReexec(asker(ev.request))
	case m.relay == nil:
		m.relay = &relay{requests: asker(ev.request), since: m.at}
	default:
		m.relay.requests = append(m.relay.requests, asker(ev.request)...)
	}
}

func (m *machine) refuseReexec(requests []int) {
	const why = "grace is stopping"
	m.say(report{level: warn, text: "reexec refused", why: why})
	m.answerAll(requests, result{outcome: OutcomeRefused, why: why})
}

// tryReexec waits for the end of what cannot travel.
func (m *machine) tryReexec() {
	r := m.relay
	switch {
	case r == nil || r.begun:
	case m.calm():
		r.begun = true
		m.do(handOver{})
	case !r.told:
		r.told = true
		m.say(report{level: info, text: "reexec waits", why: "an upgrade or a start is under way"})
	}
}

func (m *machine) onReexecDelayed() {
	if m.relay != nil {
		m.relay.begun = false
	}
	m.watchAnew()
}

// watchAnew is for the time in which no sign of life was heard.
func (m *machine) watchAnew() {
	for _, i := range m.instances {
		m.onPinged(i)
	}
}

func (m *machine) onReexecFailed(ev reexecFailed) {
	m.say(report{level: failure, text: "reexec failed, this grace goes on", why: ev.why})
	m.answerReexec(result{outcome: OutcomeFailed, why: ev.why})
	m.watchAnew()
}

// onReexeced leaves everything as it is: it is another grace's now.
func (m *machine) onReexeced(ev reexeced) {
	m.say(report{level: info, text: "another grace takes over", pid: ev.pid})
	m.answerReexec(result{outcome: OutcomeReexeced})
	m.mode = done
	m.do(finish{})
}

func (m *machine) answerReexec(r result) {
	if m.relay != nil {
		r.took = m.at.Sub(m.relay.since)
		m.answerAll(m.relay.requests, r)
		m.relay = nil
	}
}
