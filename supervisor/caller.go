package supervisor

import (
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/machine"
)

// asked is an event that somebody waits for the answer to. The loop numbers it.
type asked struct {
	machine.Event // none before it has its number
	as            func(request int) machine.Event
	lines         chan<- control.Line
}

// linesKept is how many lines a caller can be behind before it misses some.
const linesKept = 256

// callers are those who wait for results. They belong to the loop, which is the only
// one that writes to them, and so knows that there is room for the result.
type callers struct {
	last    int
	waiting map[int]chan<- control.Line
	output  string // where the app's output goes
}

func newCallers(output string) *callers {
	return &callers{waiting: map[int]chan<- control.Line{}, output: output}
}

func (c *callers) admit(a asked) machine.Event {
	c.last++
	c.waiting[c.last] = a.lines
	return a.as(c.last)
}

// hear leaves the last place to the result.
func (c *callers) hear(at time.Time, said line) {
	for _, lines := range c.waiting {
		if len(lines) < cap(lines)-1 {
			lines <- control.Line{Report: reportMessage(said, at)}
		}
	}
}

func (c *callers) Answer(a machine.Answer) {
	lines, ok := c.waiting[a.Request]
	if !ok {
		return
	}
	lines <- control.Line{Result: resultMessage(a.Result, c.output)}
	c.hangUp(a.Request)
}

func (c *callers) hangUp(request int) {
	close(c.waiting[request])
	delete(c.waiting, request)
}

// close ends those to whom nothing can be said any more.
func (c *callers) close() {
	for request := range c.waiting {
		c.hangUp(request)
	}
}

func reportMessage(l line, at time.Time) *control.Report {
	return &control.Report{
		Time: at, Level: l.level.String(), Text: l.text, Fact: string(l.event),
		Generation: shown(l.Generation), Instance: l.Instance, PID: l.PID,
		Took: l.Took.Seconds(), Within: l.Within.Seconds(), Why: l.why,
	}
}

func resultMessage(r machine.Result, output string) *control.Result {
	m := &control.Result{Outcome: control.Outcome(r.Outcome), Generation: shown(r.Generation), Serving: shown(r.Serving), Took: r.Took.Seconds(), Why: reasonText(r.Why), Unchanged: r.Unchanged, Instances: r.Instances, Share: shareOf(r.Share)}
	if r.Ran && r.Outcome != machine.OutcomeUpgraded && r.Outcome != machine.OutcomePromoted {
		m.Output = output
	}
	return m
}
