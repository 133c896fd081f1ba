package machine

import "slices"

type (
	// Unfit says that an instance should be replaced by a fresh one, and why.
	Unfit struct {
		Instance int
		Why      string
		Hangs    bool // it accepts nothing, or answers nobody
	}
	// replacement is one that is to come.
	replacement struct {
		instance int
		why      Reason
	}
)

func (ev Unfit) step(m *Machine) { m.meet(ev.Instance, ev) }

// meet gives up a generation that shares: it is tried with a part of the clients for that.
func (ev Unfit) meet(m *Machine, i *instance) {
	if g := m.sharing(); g == i.generation && m.rolling == nil && m.mode == running {
		m.fail(g, Said(ev.Why), StatusFailure)
		return
	}
	i.hangs = i.hangs || ev.Hangs && i.generation == m.current
	m.wearOut(i, Said(ev.Why))
}

// revive ends instances that hang and have had their time, so that fresh ones answer who waits at their sockets, if anybody does.
func (m *Machine) revive(g *generation) bool {
	revived := false
	for _, i := range g.instances {
		if i.hangs && i.Phase == PhaseReady && m.mode < stopping {
			m.say(Report{Fact: DrainTimedOut, Generation: g.Named(), Instance: i.ID, PID: i.PID, Took: m.at.Sub(g.Since), Why: i.account()})
			m.kill(i)
			revived = true
		}
	}
	if revived {
		g.leaveBy = m.arm(Timer{leaving: g.Number}, m.policy.emptyTime())
	}
	return revived
}

// wearOut has an instance replaced as soon as that can be: one that serves, and is not about to be.
func (m *Machine) wearOut(i *instance, why Reason) {
	known := func(r replacement) bool { return r.instance == i.ID }
	replacing := m.candidate != nil && m.candidate.Replaces == i.ID
	if i.generation != m.current || i.Phase != PhaseReady || replacing || m.at.Before(i.notBefore) || slices.ContainsFunc(m.replacements, known) {
		return
	}
	m.say(Report{Fact: InstanceUnfit, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Why: why})
	m.replacements = append(m.replacements, replacement{i.ID, why})
}

// tryReplacement goes on with the next instance that is to be replaced and still serves. Where two versions cannot run at the
// same time two instances in one place cannot either: then it ends first.
func (m *Machine) tryReplacement() {
	for m.free() && m.whole(m.current) && len(m.replacements) > 0 {
		r := m.replacements[0]
		m.replacements = m.replacements[1:]
		i := m.instances[r.instance]
		if i == nil || i.generation != m.current || i.Phase != PhaseReady {
			continue
		}
		if m.policy.MaxSurge.of(m.current.Size) == 0 {
			m.protect(m.newInstance(m.current, i.Slot, 0), r) // it is held until the other one has ended
			m.takeOut(m.current, []*instance{i})
			return
		}
		b := m.bringIn([]int{i.Slot})
		b.Replaces = i.ID
		m.protect(b.instances[0], r)
	}
}

// protect keeps an app from being started all the time whose fresh instances are unfit soon, too.
func (m *Machine) protect(fresh *instance, r replacement) {
	if _, aged := r.why.(OlderThan); !aged {
		fresh.notBefore = m.at.Add(replacementPause)
	}
}

// postpone has an instance live on that could not be replaced.
func (m *Machine) postpone(instance int) {
	if i := m.instances[instance]; i != nil {
		i.notBefore = m.at.Add(backoffAfter(i.unreplaced) + replacementPause)
		i.unreplaced++
		m.age(i)
	}
}

// age limits the life of an instance that serves.
func (m *Machine) age(i *instance) {
	m.disarm(&i.aging)
	if m.policy.MaxAge > 0 {
		i.aging = m.armJittered(Timer{aging: i.ID}, m.policy.MaxAge)
	}
}

func (m *Machine) expireAge(i *instance) {
	m.wearOut(i, OlderThan{m.policy.MaxAge})
	if len(m.replacements) == 0 || m.replacements[len(m.replacements)-1].instance != i.ID {
		m.age(i)
	}
}
