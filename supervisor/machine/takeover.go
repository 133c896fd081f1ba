package machine

import (
	"slices"
	"syscall"
)

// Foreign is the number of a generation that grace has not started: the server whose addresses the first generation takes
// over. People read it as 0, which stands for none here.
const Foreign = -1

type (
	// Found says which processes serve that the first generation is to replace. It comes before that is ready.
	Found struct {
		Servers []Server
		Launch  LaunchSpec     // what they run
		Signal  syscall.Signal // on which they stop
	}
	// Server is the main process of what grace has not started.
	Server struct{ Slot, PID int }
	// Follow watches a process that grace has not started. It is followed by one exited and one emptied, as a start is.
	Follow struct {
		Instance int
		Slot     int
		PID      int
	}
	// Leave gives up all that was done to the processes that grace has not started: they serve as they did before.
	Leave struct{}
)

// step has the first generation replace who serves, as any other generation would be replaced. Who is found when others are
// about to end already ends with them.
func (ev Found) step(m *Machine) {
	g := m.find(Foreign)
	if g == nil && (m.served || m.candidate == nil || m.mode != running) {
		m.do(Leave{})
		return
	}
	if g == nil {
		g = m.include(ev)
	}
	for _, server := range ev.Servers {
		i := m.followForeign(g, server)
		if g.Stage == StageDraining {
			m.drainInstance(i, m.drainTime(g))
		}
	}
}

func (m *Machine) include(ev Found) *generation {
	g := &generation{
		GenerationSnapshot: GenerationSnapshot{
			Number: Foreign, Stage: StageCurrent, Since: m.at, Born: m.at, Launch: ev.Launch, Opened: true, StopSignal: int(ev.Signal),
		},
		toldReady: true,
	}
	g.Launch.Generation = Foreign
	m.generations = append([]*generation{g}, m.generations...)
	m.current, m.candidate.upgrade.From = g, Foreign
	return g
}

func (m *Machine) followForeign(g *generation, s Server) *instance {
	i := m.newInstance(g, s.Slot, 0)
	i.Phase, i.PID, i.Processes = PhaseReady, s.PID, 1
	m.do(Follow{i.ID, s.Slot, s.PID})
	m.say(Report{Fact: ServerFound, Generation: Foreign, Instance: i.ID, PID: s.PID})
	return i
}

func (g *generation) foreign() bool { return g.Number == Foreign }

// stopSignal is --stop-signal, but for what grace has not started.
func (m *Machine) stopSignal(g *generation) syscall.Signal {
	if g.StopSignal != 0 {
		return syscall.Signal(g.StopSignal)
	}
	return m.policy.StopSignal
}

// giveUpTakeover ends grace where the app has not come to serve in place of what serves: that is not grace's to go on with.
// What the app has accepted it finishes before.
func (m *Machine) giveUpTakeover() {
	if m.mode != running || m.pending != nil || m.goesOver() || len(m.generations) != 1 || !m.generations[0].foreign() || m.current == nil {
		return
	}
	if m.status == 0 {
		m.status = StatusFailure
	}
	m.stop()
}

// leaveForeign: what grace has not started, and nothing has replaced, grace does not end.
func (m *Machine) leaveForeign() {
	g := m.find(Foreign)
	if g == nil || g.Stage != StageCurrent {
		return
	}
	for _, i := range g.instances {
		m.disarm(&i.timer)
		m.disarm(&i.watchdog)
		delete(m.instances, i.ID)
	}
	m.disarm(&g.progress)
	m.generations = slices.DeleteFunc(m.generations, func(other *generation) bool { return other == g })
	m.current = nil
	m.do(Leave{})
	m.say(Report{Fact: ServerLeft, Generation: Foreign})
}
