package cmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

// printStatus prints a status for people.
func printStatus(w io.Writer, s control.Status) error {
	parts := []string{headline(s)}
	for _, t := range []*table{generationsOf(s), instancesOf(s), remnantsOf(s), listenersOf(s), upgradesOf(s)} {
		var part strings.Builder
		t.print(&part)
		if part.Len() > 0 {
			parts = append(parts, part.String())
		}
	}
	_, err := io.WriteString(w, strings.Join(parts, "\n"))
	return err
}

func headline(s control.Status) string {
	text := fmt.Sprintf("%s: %s", oneLine(s.Name), oneLine(s.State))
	if s.Current != 0 {
		text += fmt.Sprintf(", generation %d", s.Current)
	}
	text += fmt.Sprintf("\n  pid %d, up %s, %s, %s, grace %s", s.PID, since(s.Started), counted(s.Crashes, "crash", "crashes"), counted(s.Restarts, "restart", "restarts"), oneLine(s.Grace))
	return clean(text) + "\n"
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
	t := newTable("GENERATION", "PHASE", "FOR", "CONNECTIONS", "DIRECTORY", "EXECUTABLE", "COMMAND")
	for _, g := range s.Generations {
		t.add(strconv.Itoa(g.Number), g.Phase, since(g.Since), number(g.Connections), g.Dir, g.Executable, commandLine(g.Command))
	}
	return t
}

func instancesOf(s control.Status) *table {
	t := newTable("INSTANCE", "GENERATION", "PID", "PHASE", "FOR", "REQUESTS", "MEMORY", "CPU", "SAYS")
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			t.add(strconv.Itoa(i.ID), strconv.Itoa(g.Number), positive(i.PID), i.Phase, since(i.Since), number(i.Requests), memory(i.Memory), cpu(i.CPU), i.Says)
		}
	}
	return t
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
		result := string(a.Outcome)
		if a.Rollback {
			result = "rollback " + result
		}
		t.add(fmt.Sprintf("%d to %d", a.From, a.Generation), a.Began.Local().Format(time.DateTime), seconds(a.Took), result, a.Why)
	}
	return t
}
