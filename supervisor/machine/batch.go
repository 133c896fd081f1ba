package machine

import "slices"

// A batch is instances of a generation that come or go apart from the rest. To all that is done to connections it is a
// generation of its own, with a number below Foreign; people know it by the number of the whole.

type (
	// Branch gives a batch the launch of its generation. It comes before anything else that is about the batch.
	Branch struct{ Generation, Of int }
	// Regroup has instances belong to other generations, all at once: new connections go by that. The sockets of the generation
	// in Park take connections also if nobody listens on them: those wait for the instance that comes.
	Regroup struct {
		Moves []Move
		Park  int // 0: none
	}
	// Move is one of them.
	Move struct{ Instance, Generation int }
)

// Named is the number that people know, and that of the launch.
func (g GenerationSnapshot) Named() int {
	if g.Of != 0 {
		return g.Of
	}
	return g.Number
}

// fact is the one about some instances where the generation as a whole is not concerned.
func (g *generation) fact(f Fact) Fact {
	if g.Of == 0 {
		return f
	}
	return map[Fact]Fact{
		GenerationEmptying:     InstancesEmptying,
		GenerationDraining:     InstancesDraining,
		GenerationToldToStop:   InstancesToldToStop,
		GenerationDrained:      InstancesDrained,
		GenerationKilled:       InstancesKilled,
		FailedGenerationEnded:  InstancesDrained,
		FailedGenerationKilled: InstancesKilled,
	}[f]
}

func (m *Machine) branch(of *generation, stage Stage) *generation {
	m.batches++
	b := &generation{
		GenerationSnapshot: GenerationSnapshot{
			Number: Foreign - m.batches, Of: of.Named(), Stage: stage, Since: m.at, Born: m.at, Launch: of.Launch,
			Ran: of.Ran, Touched: of.Touched, Opened: of.Opened,
		},
		toldReady: true,
	}
	m.generations = append(m.generations, b)
	m.do(Branch{b.Number, b.Of})
	return b
}

func (m *Machine) move(i *instance, to *generation) Move {
	i.generation.remove(i)
	i.generation = to
	to.instances = append(to.instances, i)
	return Move{i.ID, to.Number}
}

// takeOut has instances of a generation that serves finish what they have, and end, while the rest serves on.
func (m *Machine) takeOut(g *generation, leaving []*instance) {
	b := m.branch(g, StageSettling)
	var moves []Move
	for _, i := range leaving {
		moves = append(moves, m.move(i, b))
	}
	m.regroup(g, moves)
	m.noteGap()
	m.leave(b)
}

// regroup has connections wait where nothing of the generation is left for them.
func (m *Machine) regroup(g *generation, moves []Move) {
	a := Regroup{Moves: moves}
	if g == m.current && !m.serves() {
		a.Park = g.Number
	}
	m.do(a)
}

// leave is for a generation that gets no new connections any more, and does not come back.
func (m *Machine) leave(g *generation) {
	if m.emptiesFirst(g) {
		m.empty(g)
		return
	}
	m.close(g)
}

// bringIn starts more instances of the generation in service. They serve once all of them are ready.
func (m *Machine) bringIn(slots []int) *generation {
	b := m.branch(m.current, StageCandidate)
	m.candidate = b
	b.progress = m.arm(Timer{generation: b.Number}, slowStart)
	for _, slot := range slots {
		m.startInstance(m.newInstance(b, slot, 0))
	}
	return b
}

// tryJoin waits for starts that have no answer yet: an instance without a process cannot be moved.
func (m *Machine) tryJoin() {
	b := m.candidate
	if b != nil && b.Of != 0 && b.Stage == StageCandidate && b.ready() && !m.current.forks() {
		m.join(b)
	}
}

// join has a batch serve that is ready. What it replaces leaves.
func (m *Machine) join(b *generation) {
	g := m.current
	m.candidate = nil
	m.disarm(&b.progress)
	var moves []Move
	out := m.clear(g, b)
	for _, i := range out {
		moves = append(moves, m.move(i, m.branch(g, StageSettling)))
	}
	for _, i := range slices.Clone(b.instances) {
		moves = append(moves, m.move(i, g))
	}
	m.do(Regroup{Moves: moves})
	m.endBatch(b)
	for _, i := range out {
		m.leave(i.generation)
	}
	m.joined(b)
}

// clear gives the instances that are in the places of a batch. What waits there for a restart has no need of it any more.
func (m *Machine) clear(g, b *generation) (out []*instance) {
	for _, i := range slices.Clone(g.instances) {
		switch {
		case i.Ended || !slices.ContainsFunc(b.instances, func(new *instance) bool { return new.Slot == i.Slot }):
		case i.Phase == PhaseBackoff:
			m.exit(i)
		default:
			out = append(out, i)
		}
	}
	return out
}

func (m *Machine) joined(b *generation) {
	if b.Replaces != 0 {
		m.say(Report{Fact: InstanceReplaced, Generation: b.Of, Instance: b.Replaces, Took: m.at.Sub(b.Born)})
		return
	}
	m.endGrowth(b.Size, nil)
}

// endBatch is for one that nothing is left of.
func (m *Machine) endBatch(b *generation) {
	b.enter(StageEnded, m.at)
	m.drop(b)
	m.do(Retire{b.Number})
}

func (m *Machine) drop(g *generation) {
	m.disarm(&g.progress)
	m.disarm(&g.leaveBy)
	m.generations = slices.DeleteFunc(m.generations, func(other *generation) bool { return other == g })
}

// failBatch gives instances up that were to come beside others.
func (m *Machine) failBatch(b *generation, why Reason) {
	b.failure = why
	r := Report{Fact: ScalingFailed, Generation: b.Of, Why: why, Took: m.at.Sub(b.Born)}
	if b.Replaces != 0 {
		r.Fact, r.Instance = ReplacementFailed, b.Replaces
		m.postpone(b.Replaces)
	}
	m.say(r)
	m.drainGeneration(b)
	if b.Replaces == 0 {
		m.endGrowth(b.Size, why)
	}
}

// whole tells whether no batch of the generation is left.
func (m *Machine) whole(g *generation) bool {
	return !slices.ContainsFunc(m.generations, func(b *generation) bool { return b.Of == g.Number })
}
