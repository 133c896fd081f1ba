package machine

// Leftover is a process that an ended instance has left behind.
type Leftover struct {
	PID     int
	Command string
	Told    bool // to stop
}

// tellRest tells what a main process has left behind to stop: a shell that was told ends, and tells nobody.
func (m *Machine) tellRest(i *instance) {
	m.do(TellRest{Instance: i.ID, Signal: m.stopSignal(i.generation), Told: i.Told && m.policy.StopGroup})
}

func (ev Left) meet(m *Machine, i *instance) {
	i.Rest, i.Searched = ev.Rest, true
	m.say(Report{Fact: LeftoversTold, Generation: i.generation.Named(), Instance: i.ID, PID: i.PID, Why: LeftBehind{i.Rest}})
}
