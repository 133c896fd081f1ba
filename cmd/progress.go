package cmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/supervisor/control"
)

// progress prints a line for each report, on a terminal with the time since the start.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	width    int            // of the terminal; 0 is unknown
	last     control.Report // to leave out what it has said
}

func newProgress(out io.Writer, terminal bool) *progress {
	return &progress{out: out, terminal: terminal, began: time.Now()}
}

func (p *progress) show(r control.Report) {
	if r.Level == "debug" {
		return
	}
	r, p.last = p.fresh(r), r
	line := strings.ReplaceAll(clean(sentence(r)), "\n", "\n    ") // text from elsewhere must not look like a line of grace
	if p.terminal {
		line = fmt.Sprintf("%6.1f s  %s", time.Since(p.began).Seconds(), line)
	}
	for part := range strings.SplitSeq(line, "\n") {
		io.WriteString(p.out, fold.Line(part, p.width, 10)) // as with Fprintln, nothing can be done about an error
	}
}

// fresh leaves out the reason that was given just before, as of an instance that is not ready for a minute.
func (p *progress) fresh(r control.Report) control.Report {
	if r.Text == p.last.Text && r.Generation == p.last.Generation && r.PID == p.last.PID && r.Why == p.last.Why {
		r.Why = ""
	}
	return r
}

// sentence is a report as text: generation 5: instance ready (pid 4242, 0.4 s).
func sentence(r control.Report) string {
	text := r.Text
	if r.Generation != 0 {
		rest, about := strings.CutPrefix(text, "generation ")
		text = fmt.Sprintf("generation %d: %s", r.Generation, rest)
		if about {
			text = fmt.Sprintf("generation %d %s", r.Generation, rest)
		}
	}
	var details []string
	if r.PID != 0 {
		details = append(details, fmt.Sprintf("pid %d", r.PID))
	}
	if r.Took != 0 {
		details = append(details, seconds(r.Took))
	}
	if r.Within != 0 {
		details = append(details, "within "+seconds(r.Within))
	}
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	return text + because(r.Why)
}

// seconds has three digits below a second: 0.042 s, 1.3 s, 75 s.
func seconds(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.3f s", s)
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

// clean replaces control characters, so that the text of an app cannot control the terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// oneLine is for text that has to stay on one line.
func oneLine(text string) string { return strings.ReplaceAll(clean(text), "\n", " ") }
