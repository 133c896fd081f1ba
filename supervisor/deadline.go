package supervisor

import (
	"fmt"
	"time"
)

// timer names what a timer was armed for. Its number is new at each arming.
type timer struct {
	number     int
	instance   int // the instance whose phase it ends, or
	watchdog   int // the instance whose sign of life it waits for, or
	generation int // the generation whose progress is due, or
	relief     int // the generation that is given time to be relieved;
	// all zero: the drain delay of everything
}

func (m *machine) watch(i *instance) {
	if m.policy.Watchdog > 0 && i.phase == Ready {
		m.disarm(&i.watchdog)
		i.watchdog = m.arm(timer{watchdog: i.id}, m.policy.Watchdog)
		i.signDue = m.at.Add(m.policy.Watchdog)
	}
}

func (m *machine) onPinged(i *instance) {
	if i.watchdog.number != 0 {
		m.watch(i)
	}
}

func (m *machine) arm(t timer, after time.Duration) timer {
	return m.armAs(arm{timer: t, after: after})
}

func (m *machine) armJittered(t timer, after time.Duration) timer {
	return m.armAs(arm{timer: t, after: after, jittered: true})
}

func (m *machine) armAs(a arm) timer {
	m.timers++
	a.timer.number = m.timers
	m.do(a)
	return a.timer
}

func (m *machine) disarm(t *timer) {
	if t.number != 0 {
		m.do(disarm{*t})
		*t = timer{}
	}
}

func (m *machine) onTimerExpired(t timer) {
	switch {
	case t.instance != 0:
		if i := m.instances[t.instance]; i != nil && i.timer == t {
			i.timer = timer{}
			m.expire(i)
		}
	case t.watchdog != 0:
		if i := m.instances[t.watchdog]; i != nil && i.watchdog == t {
			i.watchdog = timer{}
			m.hang(i)
		}
	case t.generation != 0:
		if g := m.find(t.generation); g != nil && g.progress == t {
			g.progress = m.arm(timer{generation: g.number}, nextProgress)
			m.tellProgress(g)
		}
	case t.relief != 0:
		if g := m.find(t.relief); g != nil && g.relief == t {
			g.relief = timer{}
			m.expireRelief(g)
		}
	case m.delay == t && m.mode == lingering:
		m.delay = timer{}
		m.stop()
	}
}

// expire acts on the end of a phase's time.
func (m *machine) expire(i *instance) {
	switch i.phase {
	case Backoff:
		if !i.generation.leaving() { // or it is held from now on
			m.startInstance(i)
		}
	case Starting:
		m.expireStart(i)
	case Ready:
		i.failures = 0
	case Draining:
		m.say(report{level: warn, text: "gave up draining, killing", fact: FactKilled, generation: i.generation.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since), why: i.account()})
		m.kill(i)
	case Killing:
		if m.at.Sub(i.deadline) > heldUp { // the end may wait to be told
			m.enter(i, Killing, killPatience)
			return
		}
		m.say(report{level: failure, text: "killed, but still there", generation: i.generation.number, instance: i.id, pid: i.pid, took: m.at.Sub(i.since)})
		m.enter(i, Killing, killPatience)
		m.force(i)
	case Exited:
	}
}

func (m *machine) expireStart(i *instance) {
	why := fmt.Sprintf("instance %d (pid %d) was not ready within %s", i.id, i.pid, m.policy.ReadyTimeout)
	if more := i.unreadiness(); more != "" {
		why += ": " + more
	}
	if i.generation.stage == StageCandidate {
		i.generation.ran = true
		m.fail(i.generation, why, statusNotReady)
		return
	}
	m.say(report{level: warn, text: "restarted instance is not ready", generation: i.generation.number, instance: i.id, pid: i.pid, why: why})
	i.fault = true
	m.drainInstance(i)
}

// hang treats an app that gives no sign of life as a crashed one. Where the timer itself is
// late, as after a freeze of the whole container, the app could give none.
func (m *machine) hang(i *instance) {
	if late := m.at.Sub(i.signDue); late > m.policy.Watchdog/4 {
		m.say(report{level: warn, text: "watchdog: grace was held up itself", generation: i.generation.number, instance: i.id, took: late})
		m.watch(i)
		return
	}
	m.say(report{level: failure, text: "watchdog: no sign of life", generation: i.generation.number, instance: i.id, pid: i.pid, within: m.policy.Watchdog})
	i.fault = true
	m.kill(i)
}
