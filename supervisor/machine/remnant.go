package machine

import (
	"fmt"
	"strings"
)

// Remnant is a process that an ended instance has left behind.
type Remnant struct {
	PID     int
	Command string
	Told    bool // to stop
}

func (r Remnant) String() string {
	if r.Told {
		return fmt.Sprintf("pid %d (%s)", r.PID, r.Command)
	}
	return fmt.Sprintf("pid %d (%s, which finishes by itself)", r.PID, r.Command)
}

// restListed is how many of them a line of the log has room for.
const restListed = 10

func ListRest(rest []Remnant) string {
	var names []string
	for _, r := range rest[:min(len(rest), restListed)] {
		names = append(names, r.String())
	}
	if more := len(rest) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// tellRest tells what a main process has left behind to stop: a shell that was told ends, and tells nobody.
func (m *Machine) tellRest(i *instance) {
	m.do(TellRest{Instance: i.id, Signal: m.policy.StopSignal, Told: i.told && m.policy.StopGroup})
}

func (m *Machine) onLeft(i *instance, ev Left) {
	i.rest, i.searched = ev.Rest, true
	m.say(Report{Level: Info, Text: "processes left behind are told to stop", Generation: i.generation.number, Instance: i.id, PID: i.pid, Why: ListRest(i.rest)})
}
