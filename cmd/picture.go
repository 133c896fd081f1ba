package cmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/supervisor/control"
)

// printStatus prints a status for people whose terminal has so many columns.
func printStatus(w io.Writer, s control.Status, width int) error {
	parts := []string{headline(s, width)}
	for _, t := range []*table{generationsOf(s), instancesOf(s), remnantsOf(s), farewellsOf(s), listenersOf(s), upgradesOf(s)} {
		var part strings.Builder
		t.print(&part, width)
		if part.Len() > 0 {
			parts = append(parts, part.String())
		}
	}
	_, err := io.WriteString(w, strings.Join(parts, "\n"))
	return err
}

func headline(s control.Status, width int) string {
	text := fmt.Sprintf("%s: %s", oneLine(s.Name), oneLine(s.State))
	if s.Current != 0 {
		text += fmt.Sprintf(", generation %d", s.Current)
	}
	text += fmt.Sprintf("\n  pid %d, up %s, %s, %s, grace %s", s.PID, since(s.Started), counted(s.Crashes, "crash", "crashes"), counted(s.Restarts, "restart", "restarts"), oneLine(s.Grace))
	if s.Farewell != nil {
		text += "\n  farewell " + farewell(*s.Farewell)
	}
	var b strings.Builder
	for line := range strings.SplitSeq(clean(text), "\n") {
		b.WriteString(fold.Line(line, width, 4))
	}
	return b.String()
}

func farewell(f control.Farewell) string {
	switch {
	case f.Why != "":
		return oneLine(f.State) + ": " + oneLine(f.Why)
	case f.Within > 0:
		return fmt.Sprintf("%s: clients have %s to close kept-alive connections", oneLine(f.State), seconds(f.Within))
	}
	return oneLine(f.State)
}

func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(time.Since(t))
}

func generationsOf(s control.Status) *table {
	t := newTable("GENERATION", "PHASE", "FOR", "CONNECTIONS", "WAITS FOR", "DIRECTORY", "EXECUTABLE", "COMMAND")
	for _, g := range s.Generations {
		t.add(numbered(g), g.Phase, since(g.Since), number(g.Connections), waitsFor(g, closingOf(s, g.Number)), g.Dir, g.Executable, commandLine(g.Command))
	}
	return t
}

// numbered tells a batch from the rest of its generation.
func numbered(g control.Generation) string {
	if g.Batch {
		return fmt.Sprintf("%d (part)", g.Number)
	}
	return strconv.Itoa(g.Number)
}

// waitsFor says what a generation that was replaced waits for, and how long it may.
func waitsFor(g control.Generation, c control.Closing) string {
	text := ""
	switch g.Phase {
	case "settling":
		text = "--settle"
	case "sharing":
		text = percent(g.Share) + " of the new connections"
		if g.Until == nil {
			text += ", until grace promote"
		}
	case "warm":
		text = "--keep-warm"
	case "emptying":
		text = "connections to be idle"
	case "closing":
		text = "requests to be answered"
		if c.Busy > 0 {
			text = counted(c.Busy, "client to close its connection", "clients to close their connections")
		}
	case "draining":
		text = "the app to end"
	}
	if left := remaining(g.Until); text != "" && left > 0 {
		text += fmt.Sprintf(", %s left", tenths(left))
	}
	return text
}

// percent is short for round numbers.
func percent(part float64) string {
	return strconv.FormatFloat(100*part, 'f', -1, 64) + " %"
}

func remaining(until *time.Time) time.Duration {
	if until == nil {
		return 0
	}
	return time.Until(*until)
}

func tenths(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return age(d)
}

func closingOf(s control.Status, generation int) control.Closing {
	if s.Farewell != nil {
		for _, c := range s.Farewell.Generations {
			if c.Generation == generation {
				return c
			}
		}
	}
	return control.Closing{}
}

func farewellsOf(s control.Status) *table {
	t := newTable("FAREWELL", "LEFT", "OPEN", "BUSY", "SILENT", "HELD", "KEPT", "NOT ASKED", "WAITS FOR")
	if s.Farewell == nil {
		return t
	}
	for _, c := range s.Farewell.Generations {
		last := ""
		if c.Kept > 0 {
			last = counted(c.Kept, "kept client to send its last request", "kept clients to send their last request")
		}
		t.add(fmt.Sprintf("generation %d", c.Generation), strconv.Itoa(c.Left), strconv.Itoa(c.Open), strconv.Itoa(c.Busy), strconv.Itoa(c.Silent),
			positive(c.Held), positive(c.Kept), positive(c.Untold), last)
	}
	return t
}

func instancesOf(s control.Status) *table {
	t := newTable("INSTANCE", "GENERATION", "PID", "PHASE", "FOR", "REQUESTS", "MEMORY", "CPU", "SAYS")
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			t.add(strconv.Itoa(i.ID), strconv.Itoa(g.Number), positive(i.PID), i.Phase, since(i.Since), number(i.Requests), memory(i.Memory), cpu(i.CPU), says(i))
		}
	}
	return t
}

// says adds to what an instance says of itself what it cannot do any more.
func says(i control.Instance) string {
	if !i.Uncaptured {
		return i.Says
	}
	return strings.TrimPrefix(i.Says+"; cannot bind or listen until the next upgrade, as the grace process before this one was killed", "; ")
}

func remnantsOf(s control.Status) *table {
	t := newTable("LEFT BEHIND", "GENERATION", "INSTANCE", "COMMAND")
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			for _, r := range i.Rest {
				t.add(strconv.Itoa(r.PID), strconv.Itoa(g.Number), strconv.Itoa(i.ID), r.Command)
			}
		}
	}
	return t
}

func listenersOf(s control.Status) *table {
	t := newTable("SOCKET", "ADDRESS", "KIND", "GENERATION", "CONNECTIONS", "QUEUE")
	for _, l := range s.Listeners {
		name := l.Name
		if name == "" {
			name = "-"
		}
		t.add(name, l.Network+" "+l.Address, l.Kind, positive(l.Generation), number(l.Connections), number(l.Queue))
	}
	return t
}

func upgradesOf(s control.Status) *table {
	t := newTable("UPGRADE", "BEGAN", "TOOK", "RESULT", "WHY")
	for _, a := range s.Upgrades {
		t.add(fmt.Sprintf("%d to %d", a.From, a.Generation), a.Began.Local().Format(time.DateTime), seconds(a.Took), resultOf(a), a.Why)
	}
	return t
}

func resultOf(a control.UpgradeRecord) string {
	switch {
	case a.Rollback && a.Outcome == control.Upgraded:
		return rolledBack
	case a.Rollback:
		return "rollback " + string(a.Outcome)
	}
	return string(a.Outcome)
}
