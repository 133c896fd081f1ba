package machine

import "time"

type (
	// Announce asks the clients of a generation's kept-alive connections to leave. It is answered by announced and
	// departed, unless hold or recall comes before that or the generation ends.
	Announce struct {
		Generation int
		PIDs       []int
	}
	// Hold holds back what comes on connections that are silent, until their app has closed them. It is answered by held.
	Hold struct {
		Generation int
		PIDs       []int
		Answers    time.Duration // how long the answers to open requests are waited for before
	}
	// Keep serves the held connections to their end once the app has closed them. It is answered by kept.
	Keep struct{ Generation int }
	// Recall takes an announcement back: the generation serves again.
	Recall struct{ Generation int }
	// Part ends the wait for requests on connections that are kept, or will be.
	Part struct{}
	// Hasten ends the keep actions that are under way as soon as nothing is held or kept any more, and those that take longer
	// than the drain time then.
	Hasten struct{}

	// Announced answers an announce action: answers say from now on that the connection closes, or cannot. Departed follows.
	Announced struct {
		Generation int
		Clients    int // that are about to ask again
	}
	// Departed says that no client is left that is about to ask again.
	Departed struct{ Generation int }
	// Held answers a hold action.
	Held struct{ Generation int }
	// Kept answers a keep action: the last of the connections has ended.
	Kept struct {
		Generation int
		Ends       ConnectionEnds
	}
)

// ConnectionEnds is how the connections of a generation have ended that were open when its successor came to serve.
type ConnectionEnds struct {
	Left    int // closed by their clients
	Relayed int // of those that stayed open when the app had closed them: their last request was answered by the successor
	Expired int // of those, the ones that brought none
	Cut     int // closed by the app, or without an answer
}

// announce: a client that is told to leave early loses nothing.
func (m *Machine) announce(g *generation) {
	if m.policy.Farewell > 0 && !g.announced && g.serves() {
		g.announced = true
		m.do(Announce{g.Number, g.pids()})
	}
}

// recall is for a generation that takes over again.
func (m *Machine) recall(g *generation) {
	if g.announced {
		g.announced, g.asked = false, false
		m.do(Recall{g.Number})
	}
}

// close comes before the stop signal. Clients that were told only now have some time to leave. An app that sends its
// clients away itself waits for their last requests, which must not be held back.
func (m *Machine) close(g *generation) {
	if g.drains() {
		m.turnAway(g)
		return
	}
	m.announce(g)
	if !g.announced {
		m.turnAway(g)
		return
	}
	m.disarm(&g.leaveBy)
	if m.current == g {
		m.current = nil
	}
	g.enter(StageClosing, m.at)
	for _, i := range g.backoffs() {
		m.exit(i)
	}
	switch {
	case g.Stage != StageClosing: // nothing was left
	case g.asked && g.emptied():
		m.holdSilent(g)
	case g.asked:
		m.awaitDeparture(g)
	default:
		g.leaveBy = m.arm(Timer{leaving: g.Number}, m.announceTime())
	}
}

// awaitDeparture gives clients time from the moment in which they are told, and not from the order to tell them.
func (m *Machine) awaitDeparture(g *generation) {
	m.disarm(&g.leaveBy)
	g.leaveBy = m.arm(Timer{leaving: g.Number}, m.policy.Farewell)
	if m.policy.Farewell > firstProgress && g.progress == (Timer{}) {
		g.progress = m.arm(Timer{generation: g.Number}, firstProgress)
	}
}

func (m *Machine) tellAsked(g *generation, clients int, closing bool) {
	r := Report{Fact: ClientsAsked, Generation: g.Named(), Connections: &clients}
	if closing {
		r.Within = m.policy.Farewell
	}
	m.say(r)
}

func (ev Announced) step(m *Machine) {
	g := m.find(ev.Generation)
	if g == nil || !g.announced {
		return
	}
	g.asked = true
	closing := g.awaitsDeparture()
	if closing {
		m.awaitDeparture(g)
	}
	if ev.Clients > 0 {
		m.tellAsked(g, ev.Clients, closing)
	}
}

func (ev Departed) step(m *Machine) {
	if g := m.find(ev.Generation); g != nil && g.awaitsDeparture() {
		m.holdSilent(g)
	}
}

// awaitsDeparture reports whether its clients have time to leave.
func (g *generation) awaitsDeparture() bool {
	return g.Stage == StageClosing && !g.holding && !g.turnsAway
}

// holdSilent: a request that comes when the app is about to close the connection would be lost. Without a successor there
// is nobody else to answer it.
func (m *Machine) holdSilent(g *generation) {
	m.disarm(&g.leaveBy)
	if !m.succeeded(g) {
		m.endClosing(g)
		return
	}
	g.holding = true
	g.leaveBy = m.arm(Timer{leaving: g.Number}, m.policy.holdTime())
	m.do(Hold{g.Number, g.pids(), m.policy.holdTime() / 2})
}

// succeeded reports whether others serve in place of a generation, or are about to.
func (m *Machine) succeeded(g *generation) bool {
	return m.mode < stopping && m.current != nil && m.current != g && (m.serves() || !m.gap.IsZero())
}

func (ev Held) step(m *Machine) {
	if g := m.find(ev.Generation); g != nil && g.Stage == StageClosing && g.holding {
		m.endClosing(g)
	}
}

func (m *Machine) expireClosing(g *generation) {
	switch {
	case g.turnsAway:
		m.drainGeneration(g)
	case g.holding || !g.asked:
		m.endClosing(g)
	default:
		m.holdSilent(g)
	}
}

// announceTime is how long grace waits for clients to be told: a stop is not to be late for it.
func (m *Machine) announceTime() time.Duration {
	if m.mode >= stopping {
		return m.policy.holdTime()
	}
	return announcePatience
}

func (m *Machine) endClosing(g *generation) {
	m.keeping++
	m.hastened = false
	if g.Of != 0 {
		m.keptOf[g.Number] = g.Of
	}
	m.do(Keep{g.Number})
	m.turnAway(g)
}

func (ev Kept) step(m *Machine) {
	if m.keeping > 0 {
		m.keeping--
	}
	r := Report{Fact: KeptConnectionsEnded, Generation: ev.Generation, Why: ev.Ends}
	if of, batch := m.keptOf[ev.Generation]; batch {
		r.Generation = of
		delete(m.keptOf, ev.Generation)
	}
	if ev.Ends != (ConnectionEnds{}) {
		m.say(r)
	}
}

// part: who has not asked until all of grace stops finds nobody to answer.
func (m *Machine) part() {
	if m.policy.Farewell > 0 {
		m.do(Part{})
	}
}

// hasten: the connections that a process keeps cannot travel with a reexec.
func (m *Machine) hasten() {
	if m.keeping > 0 && !m.hastened {
		m.hastened = true
		m.do(Hasten{})
	}
}

// holdTime is how long holding may take.
func (p Policy) holdTime() time.Duration {
	if p.Farewell == 0 {
		return 0
	}
	return min(holdPatience, p.DrainTimeout/8)
}

func (ConnectionEnds) isReason() {}
