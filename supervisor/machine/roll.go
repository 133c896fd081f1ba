package machine

import "time"

// Surge is how many instances may run beside the old ones during an upgrade. The zero value is as many as there are.
type Surge struct {
	Limited bool
	Count   int // or
	Percent int
}

// of is the number for so many instances.
func (s Surge) of(instances int) int {
	switch {
	case !s.Limited:
		return instances
	case s.Percent > 0:
		return min(instances, (instances*s.Percent+99)/100)
	}
	return min(instances, s.Count)
}

// Roll is an upgrade whose instances come one after another, each in place of an old one.
type Roll struct{ Surge int }

// rolls reports whether a generation comes one instance after another.
func (m *Machine) rolls(g *generation) bool {
	return m.current != nil && !m.current.foreign() && m.current.alive() && g.Surge.of(m.policy.Instances) < m.policy.Instances
}

func (m *Machine) beginRolling(g *generation) {
	g.Roll = &Roll{g.Surge.of(m.policy.Instances)}
	m.rolling = g
}

// roll takes what steps an upgrade can take now. Forward the new generation's instances come and the old one's go, and back
// the other way round.
func (m *Machine) roll() {
	if m.rolling == nil || m.mode != running {
		return
	}
	to, from := m.rolling, m.current
	if from == nil || !from.alive() {
		m.rollAlone(to)
		return
	}
	if to.failure != nil {
		m.rollBack(from, to)
		return
	}
	m.rollForward(to, from)
}

func (m *Machine) rollForward(to, from *generation) {
	if m.goesOver() {
		return // where new connections go is known soon
	}
	m.endReturn()
	if len(to.instances) == to.Size && to.ready() {
		m.rolling = nil
		m.promote(to)
		return
	}
	m.hold(from) // what has crashed gives its place to the new one
	m.replaceSome(from, to)
	for slot := len(to.instances); slot < to.Size && m.room() > 0; slot++ {
		m.startInstance(m.newInstance(to, slot, 0))
	}
	m.shareByCount(to, from)
}

// rollAlone is for a generation that has nothing left to replace.
func (m *Machine) rollAlone(g *generation) {
	m.rolling, g.Roll = nil, nil
	m.answerBack()
	if g.leaving() || g.Stage == StageEnded {
		m.endIfDeserted()
		return
	}
	for slot := len(g.instances); slot < g.Size; slot++ {
		m.startInstance(m.newInstance(g, slot, 0))
	}
	m.promoteAlone()
}

// room is how many more instances may run.
func (m *Machine) room() int {
	running := 0
	for _, i := range m.instances {
		if i.Phase != PhaseBackoff {
			running++
		}
	}
	return m.rolling.Size + m.rolling.Roll.Surge - running
}

// spare is how many of those that serve may stop.
func (m *Machine) spare(to, from *generation) int {
	least := m.rolling.Size
	if m.rolling.Roll.Surge == 0 {
		least--
	}
	return to.readies() + from.readies() - least
}

// replaceSome takes instances out of service for which there are others, or may be none. Those that do not serve go first.
func (m *Machine) replaceSome(from, to *generation) {
	var leaving []*instance
	spare := m.spare(to, from)
	for _, i := range from.instances {
		switch {
		case i.Phase == PhaseStarting && i.PID != 0 && (from.failure != nil || m.room() <= 0):
			leaving = append(leaving, i)
		case i.Phase == PhaseReady && spare > 0:
			leaving = append(leaving, i)
			spare--
		}
	}
	if len(leaving) == 0 {
		return
	}
	if from == m.current {
		for _, i := range leaving {
			m.newInstance(from, i.Slot, 0) // it is held, to come back if the upgrade fails
		}
	}
	m.takeOut(from, leaving)
}

// shareByCount gives each instance that serves the same share of the clients.
func (m *Machine) shareByCount(to, from *generation) {
	if to.readies() == 0 {
		return
	}
	share := Whole
	if old := from.readies(); old > 0 {
		share = Whole * Share(to.readies()) / Share(to.readies()+old)
	}
	if to.Stage == StageCandidate {
		to.enter(StageSharing, m.at)
		m.disarm(&to.progress)
	}
	if to.Share != share {
		to.Share = share
		if m.policy.Steered {
			m.steerAnew()
		}
	}
}

// failRolling has the old generation come back to what it was.
func (m *Machine) failRolling(g *generation, why Reason) {
	if g.failure != nil || m.mode != running {
		return
	}
	g.failure = why
	fact, outcome := UpgradeFailed, OutcomeFailed
	if g.Stage == StageSharing {
		fact, outcome = undoneFact(why), OutcomeUndone
	}
	if len(m.current.backoffs()) > 0 {
		why = Both{why, OthersReturn}
	}
	m.say(Report{Fact: fact, Generation: g.Named(), Serving: m.current.Number, Took: m.at.Sub(g.Born), Why: why})
	m.conclude(g, outcome, why)
	if g.readies() > 0 {
		return // it serves on until the old instances are there again
	}
	m.candidate = nil
	if g.Stage == StageSharing && m.policy.Steered {
		m.steerAnew()
	}
	m.drainGeneration(g)
}

func (m *Machine) rollBack(old, failed *generation) {
	if failed.leaving() || failed.Stage == StageEnded {
		m.bringBack(old)
		m.endRolling(old)
		return
	}
	m.replaceSome(failed, old)
	m.bringBack(old)
	if old.readies() == old.Size || failed.readies() == 0 {
		m.candidate = nil
		m.relieveFailed(failed)
		return
	}
	m.shareByCount(failed, old)
}

// bringBack starts what the old generation has lost to the new one, as far as there is room.
func (m *Machine) bringBack(g *generation) {
	for _, i := range g.held() {
		if m.room() > 0 {
			m.startAtOnce(i, GenerationReturned)
		}
	}
}

// endRolling comes when all of the old generation have been started again.
func (m *Machine) endRolling(g *generation) {
	if m.cutovers == 0 && len(g.held()) == 0 {
		m.rolling.Roll, m.rolling = nil, nil
		m.answerBack()
	}
}

// relieveFailed: what it has accepted it can finish.
func (m *Machine) relieveFailed(g *generation) {
	if m.policy.Steered {
		m.steerAnew()
	}
	m.leave(g)
}

func (g *generation) readies() int {
	n := 0
	for _, i := range g.instances {
		if i.Phase == PhaseReady {
			n++
		}
	}
	return n
}

// serves reports whether anything gets new connections that can answer them.
func (m *Machine) serves() bool {
	return m.current.serves() || m.rolling != nil && m.rolling.serves()
}

// noteGap keeps since when nothing serves.
func (m *Machine) noteGap() {
	if !m.serves() && m.gap.IsZero() {
		m.gap = m.at
		m.say(Report{Fact: ServingPaused, Generation: m.current.Number})
	}
}

// endGap comes with the first instance that serves again.
func (m *Machine) endGap(g *generation) {
	if !m.gap.IsZero() {
		m.say(Report{Fact: ServingResumed, Generation: g.Named(), Took: m.at.Sub(m.gap)})
		m.gap = time.Time{}
	}
}
