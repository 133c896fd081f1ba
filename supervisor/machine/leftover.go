package machine

// Leftover is a process that an ended instance has left behind.
type Leftover struct {
	PID     int
	Command string
	Told    bool // to stop
}

// tellRest tells what a main process has left behind to stop: a shell that was told ends, and tells nobody.
func (m *Machine) tellRest(i *instance) {
	m.do(TellRest{Instance: i.id, Signal: m.policy.StopSignal, Told: i.told && m.policy.StopGroup})
}

func (ev Left) meet(m *Machine, i *instance) {
	i.rest, i.searched = ev.Rest, true
	m.say(Report{Fact: RemnantsTold, Generation: i.generation.number, Instance: i.id, PID: i.pid, Why: LeftBehind{i.rest}})
}
