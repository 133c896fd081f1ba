package supervisor

import (
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

// asked is an event that somebody waits for the answer to. The loop numbers it.
type asked struct {
	event // none before it has its number
	as    func(request int) event
	lines chan<- control.Line
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

func (c *callers) admit(a asked) event {
	c.last++
	c.waiting[c.last] = a.lines
	return a.as(c.last)
}

// hear leaves the last place to the result.
func (c *callers) hear(at time.Time, r report) {
	for _, lines := range c.waiting {
		if len(lines) < cap(lines)-1 {
			lines <- control.Line{Report: reportMessage(r, at)}
		}
	}
}

func (c *callers) answer(a answer) {
	lines, ok := c.waiting[a.request]
	if !ok {
		return
	}
	lines <- control.Line{Result: resultMessage(a.result, c.output)}
	c.hangUp(a.request)
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

func reportMessage(r report, at time.Time) *control.Report {
	return &control.Report{
		Time: at, Level: levels[r.level].String(), Text: r.text, Fact: string(r.fact),
		Generation: r.generation, Instance: r.instance, PID: r.pid,
		Took: r.took.Seconds(), Within: r.within.Seconds(), Why: r.why,
	}
}

func resultMessage(r result, output string) *control.Result {
	m := &control.Result{Outcome: control.Outcome(r.outcome), Generation: r.generation, Serving: r.serving, Took: r.took.Seconds(), Why: r.why, Unchanged: r.unchanged}
	if r.ran && r.outcome != OutcomeUpgraded {
		m.Output = output
	}
	return m
}
