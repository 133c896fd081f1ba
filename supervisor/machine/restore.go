package machine

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Restore gives the machine of a state, and what is to be done first: to arm the timers
// with what is left of their time, to look at those that empty, and to order once more what has no answer.
func Restore(p Policy, s Snapshot, at time.Time) (*Machine, []Action, error) {
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	p.NoUpgrade = said(s.NoUpgrade)
	m := NewMachine(p)
	m.at, m.generation, m.instance, m.batches, m.status = at, s.Generation, s.Instance, s.Batches, s.Status
	if s.Scaled > 0 {
		m.policy.Instances, m.scaled = s.Scaled, true
	}
	m.served, m.toldFirst = !s.Unserved, !s.Unserved
	m.restarts, m.crashes, m.restartedAt = s.Restarts, s.Crashes, slices.Clone(s.RestartedAt)
	for _, r := range s.History {
		m.history = append(m.history, upgradeRecord{UpgradeRecord: r, why: said(r.Why)})
	}
	for _, executable := range s.Notifying {
		m.notifying[executable] = true
	}
	for _, saved := range s.Generations {
		if !saved.abandoned() {
			m.restoreGeneration(saved)
		}
	}
	m.current = m.find(s.Current)
	for _, g := range m.generations {
		if g.Before != nil && m.find(g.Before.Generation) == nil && !slices.Contains(m.retired, g.Before.Generation) {
			m.retired = append(m.retired, g.Before.Generation)
		}
	}
	m.goOn(s)
	m.settle()
	return m, m.actions, nil
}

// abandoned is one that was given up while its files were looked at: nothing of it is left.
func (g GenerationSnapshot) abandoned() bool {
	return g.Stage > StageCandidate && len(g.Instances) == 0 && g.Launch.Executable == ""
}

func (m *Machine) restoreGeneration(s GenerationSnapshot) {
	g := &generation{GenerationSnapshot: s, toldReady: s.Upgrade == nil, failure: said(s.Failure), ending: said(s.Ending)}
	g.Instances, g.Upgrade = nil, nil
	if g.Size == 0 && g.Of == 0 { // a grace process before this one could not change it
		g.Size = m.policy.Instances
	}
	if s.Upgrade != nil {
		g.upgrade = &upgradeRecord{UpgradeRecord: *s.Upgrade, why: said(s.Upgrade.Why)}
	}
	m.generations = append(m.generations, g)
	for _, saved := range s.Instances {
		m.restoreInstance(g, saved)
	}
	g.progress = m.rearm(Timer{generation: g.Number}, s.Progress)
	g.leaveBy = m.rearm(Timer{leaving: g.Number}, s.LeaveBy)
	if g.Stage == StageEmptying {
		g.Emptying = g.Since // which is not in the state of an older grace
		m.observe(g)
	}
	if g.Stage == StageSettling || g.Stage == StageWarm || g.Stage == StageEmptying {
		m.announce(g)
	}
}

func (m *Machine) restoreInstance(g *generation, s InstanceSnapshot) {
	i := &instance{
		InstanceSnapshot: s, generation: g, deadline: s.Deadline, signDue: s.Watchdog,
		exit: Exit{Code: s.Code, Signal: syscall.Signal(s.Signal), Unknown: !s.ExitKnown},
	}
	m.instances[i.ID] = i
	g.instances = append(g.instances, i)
	i.timer = m.rearm(Timer{Instance: i.ID}, s.Deadline)
	i.watchdog = m.rearm(Timer{watchdog: i.ID}, s.Watchdog)
	i.aging = m.rearm(Timer{aging: i.ID}, s.Aged)
	if i.Ended && i.Phase == PhaseDraining && !i.Searched {
		m.tellRest(i)
	}
}

// rearm lets a timer that is overdue expire at once.
func (m *Machine) rearm(t Timer, due time.Time) Timer {
	if due.IsZero() {
		return Timer{}
	}
	return m.arm(t, max(due.Sub(m.at), time.Nanosecond))
}

// goOn takes up what was under way when the machine was not calm: a grace process that was killed has answered nobody.
func (m *Machine) goOn(s Snapshot) {
	if s.Pending != nil {
		m.pending = &pendingUpgrade{command: s.Pending.Command, rollback: s.Pending.Rollback, canary: s.Pending.Canary, surge: s.Pending.MaxSurge}
	}
	for _, g := range slices.Clone(m.generations) {
		if g.Roll != nil && g != m.current {
			m.rolling = g
		}
		m.goOnStarting(g)
		m.goOnStopping(g)
	}
	if m.current == nil && m.candidate == nil && m.pending == nil {
		m.pending = &pendingUpgrade{}
	}
	if m.current != nil {
		m.startAgain(m.current)
	}
	m.promoteAlone()
	m.replaceDead()
	switch {
	case m.current == nil, m.mode != running, m.goesOver():
	case s.GoesOver:
		m.steerAnew()
	case m.settling() == nil:
		m.conclude(m.current, OutcomeUpgraded, nil)
	}
}

// replaceDead is for a grace process that was killed while it stopped: what had ended by then was not to be started again.
func (m *Machine) replaceDead() {
	g := m.current
	if g == nil || g.foreign() || g.alive() || m.candidate != nil || m.pending != nil {
		return
	}
	if before := m.replaced(); before != nil && before.serves() {
		m.giveBack(g, before, NothingLeft)
		return
	}
	m.pending = &pendingUpgrade{}
}

// goOnStarting has what was ordered and not done by then begin anew.
func (m *Machine) goOnStarting(g *generation) {
	switch g.Stage {
	case StagePreparing:
		m.prepareAnew(g)
		return
	case StageCandidate:
		m.candidate = g
	case StageSharing:
		m.candidate = g
		m.examine(g)
	case StageCurrent, StageSettling, StageWarm, StageEmptying, StageClosing, StageDraining, StageEnded:
	}
	for _, i := range slices.Clone(g.instances) {
		switch {
		case i.Phase == PhaseBackoff || i.PID != 0:
		case i.Phase == PhaseStarting:
			m.startInstance(i)
		default:
			if g.Stage == StageCurrent && m.wantsRestart(i) { // its start took too long, and nobody will hear its end
				m.fill(i)
			}
			m.exit(i)
		}
	}
	if g.Stage == StageCandidate && g.ready() {
		m.comeIn(g)
	}
}

// prepareAnew asks again for a generation of which nothing was begun but a look at its files.
func (m *Machine) prepareAnew(g *generation) {
	if m.pending == nil {
		m.pending = &pendingUpgrade{command: g.Launch.Command, canary: g.Canary, surge: &g.Surge}
		if g.upgrade != nil {
			m.pending.rollback = g.upgrade.Rollback
		}
	}
	m.generations = slices.DeleteFunc(m.generations, func(other *generation) bool { return other == g })
}

// goOnStopping tells once more what may not have been told.
func (m *Machine) goOnStopping(g *generation) {
	switch {
	case g.Stage == StageClosing:
		m.close(g)
	case g.Stage == StageCurrent && len(g.instances) == 0 && m.whole(g): // grace was about to end
		g.enter(StageDraining, m.at)
	}
	for _, i := range g.instances {
		if i.Phase == PhaseKilling {
			m.force(i)
		}
	}
	if g.leaving() && g.upgrade != nil {
		m.conclude(g, OutcomeUndone, g.failure) // one that fails before it serves is concluded at once
	}
	m.endIfEmpty(g)
}

// check refuses what no machine has been in.
func (s Snapshot) check() error {
	current := func(g GenerationSnapshot) bool { return g.Number == s.Current }
	if s.Current != 0 && !slices.ContainsFunc(s.Generations, current) {
		return fmt.Errorf("the state has no generation %d, the one that it names as current", s.Current)
	}
	generations, instances, candidates := map[int]bool{}, map[int]bool{}, 0
	for _, g := range s.Generations {
		switch {
		case g.Number == 0 || g.Number > s.Generation || (g.Number < Foreign) != (g.Of != 0) || g.Number < Foreign-s.Batches || generations[g.Number]:
			return fmt.Errorf("the state has a generation %d that cannot be", g.Number)
		case (g.Stage == StageCurrent) != current(g) || g.Stage == StageEnded:
			return fmt.Errorf("the state has generation %d as %s, but generation %d as the current one", g.Number, g.Stage, s.Current)
		case g.Stage < StageCurrent:
			candidates++
		}
		generations[g.Number] = true
		for _, i := range g.Instances {
			if i.ID < 1 || i.ID > s.Instance || instances[i.ID] || i.Phase == PhaseExited || i.PID < 0 || i.Slot < 0 {
				return fmt.Errorf("the state has an instance %d that cannot be", i.ID)
			}
			instances[i.ID] = true
		}
	}
	if candidates > 1 {
		return fmt.Errorf("the state has %d generations that start at the same time", candidates)
	}
	return nil
}
