package supervisor

import (
	"fmt"
	"strings"
)

// remnant is a process that an ended instance has left behind.
type remnant struct {
	PID     int
	Command string
	Told    bool // to stop
}

func (r remnant) String() string {
	if r.Told {
		return fmt.Sprintf("pid %d (%s)", r.PID, r.Command)
	}
	return fmt.Sprintf("pid %d (%s, which finishes by itself)", r.PID, r.Command)
}

// restListed is how many of them a line of the log has room for.
const restListed = 10

func listRest(rest []remnant) string {
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
func (m *machine) tellRest(i *instance) {
	m.do(tellRest{instance: i.id, signal: m.policy.StopSignal, told: i.told && m.policy.StopGroup})
}

func (m *machine) onLeft(i *instance, ev left) {
	i.rest, i.searched = ev.rest, true
	m.say(report{level: info, text: "processes left behind are told to stop", generation: i.generation.number, instance: i.id, pid: i.pid, why: listRest(i.rest)})
}
