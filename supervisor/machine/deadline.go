package machine

import "time"

// Timer names what a timer was armed for. Its number is new at each arming.
type Timer struct {
	Number     int
	Instance   int  // the instance whose phase it ends, or
	watchdog   int  // the instance whose sign of life it waits for, or
	aging      int  // the instance that is to be replaced by then, or
	generation int  // the generation whose progress is due, or
	leaving    int  // the generation that is given time to be relieved, or
	cutover    bool // new connections are to go elsewhere by then;
	// all zero: the drain delay of everything
}

func (m *Machine) watch(i *instance) {
	if m.policy.Watchdog > 0 && i.Phase == PhaseReady {
		m.disarm(&i.watchdog)
		i.watchdog = m.arm(Timer{watchdog: i.ID}, m.policy.Watchdog)
		i.signDue = m.at.Add(m.policy.Watchdog)
	}
}

func (Pinged) meet(m *Machine, i *instance) {
	if i.watchdog.Number != 0 {
		m.watch(i)
	}
}

func (m *Machine) arm(t Timer, after time.Duration) Timer {
	return m.armAs(Arm{Timer: t, After: after})
}

func (m *Machine) armJittered(t Timer, after time.Duration) Timer {
	return m.armAs(Arm{Timer: t, After: after, Jittered: true})
}

func (m *Machine) armAs(a Arm) Timer {
	m.timers++
	a.Timer.Number = m.timers
	m.do(a)
	return a.Timer
}

func (m *Machine) disarm(t *Timer) {
	if t.Number != 0 {
		m.do(Disarm{*t})
		*t = Timer{}
	}
}

func (ev TimerExpired) step(m *Machine) {
	t := ev.Timer
	switch {
	case t.Instance != 0:
		if i := m.instances[t.Instance]; i != nil && i.timer == t {
			i.timer = Timer{}
			m.expire(i)
		}
	case t.watchdog != 0:
		if i := m.instances[t.watchdog]; i != nil && i.watchdog == t {
			i.watchdog = Timer{}
			m.hang(i)
		}
	case t.aging != 0:
		if i := m.instances[t.aging]; i != nil && i.aging == t {
			i.aging = Timer{}
			m.expireAge(i)
		}
	case t.generation != 0:
		if g := m.find(t.generation); g != nil && g.progress == t {
			g.progress = m.arm(Timer{generation: g.Number}, NextProgress)
			m.tellProgress(g)
		}
	case t.leaving != 0:
		if g := m.find(t.leaving); g != nil && g.leaveBy == t {
			g.leaveBy = Timer{}
			m.expireRelief(g)
		}
	case t.cutover:
		if m.cutover == t {
			m.endCutover(NoAnswer)
		}
	case m.delay == t && m.mode == lingering:
		m.delay = Timer{}
		m.stop()
	}
}

// expire acts on the end of a phase's time.
func (m *Machine) expire(i *instance) {
	switch i.Phase {
	case PhaseBackoff:
		if !i.generation.leaving() { // or it is held from now on
			m.startInstance(i)
		}
	case PhaseStarting:
		m.expireStart(i)
	case PhaseReady:
		i.Failures = 0
	case PhaseDraining:
		m.say(Report{Fact: DrainTimedOut, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Took: m.at.Sub(i.Since), Why: i.account()})
		m.kill(i)
	case PhaseKilling:
		if m.at.Sub(i.deadline) > heldUp { // the end may wait to be told
			m.enter(i, PhaseKilling, killPatience)
			return
		}
		m.say(Report{Fact: KillTimedOut, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Took: m.at.Sub(i.Since)})
		m.enter(i, PhaseKilling, killPatience)
		m.force(i)
	case PhaseExited:
	}
}

func (m *Machine) expireStart(i *instance) {
	why := NotReadyInTime{Instance: i.ID, PID: i.PID, After: m.policy.ReadyTimeout, More: i.unreadiness()}
	if g := i.generation; g.Stage == StageCandidate || g == m.rolling && g.failure == nil {
		g.Ran = true
		m.fail(g, why, statusNotReady)
		return
	}
	m.say(Report{Fact: RestartNotReady, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Why: why})
	i.Fault = true
	m.drainInstance(i, m.drainTime(i.generation))
}

// hang treats an app that gives no sign of life as a crashed one. Where the timer itself is
// late, as after a freeze of the whole container, the app could give none.
func (m *Machine) hang(i *instance) {
	if late := m.at.Sub(i.signDue); late > m.policy.Watchdog/4 {
		m.say(Report{Fact: WatchdogLate, Generation: i.generation.Named(), Instance: i.ID, Took: late})
		m.watch(i)
		return
	}
	m.say(Report{Fact: WatchdogTimedOut, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Within: m.policy.Watchdog})
	i.Fault = true
	m.kill(i)
}
