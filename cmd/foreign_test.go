package cmd

import (
	"strings"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
)

// What another user's process answers makes no line of its own.
func TestForeignNewlinesStayInTheirLine(t *testing.T) {
	const forged = "x\nroot: serving"
	var text strings.Builder
	s := control.Status{Name: forged, State: forged, Grace: forged, Generations: []control.Generation{{Phase: forged, Dir: forged, Command: []string{forged}}}}
	if err := printStatus(&text, s, 0); err != nil {
		t.Fatal(err)
	}
	newProgress(&text, false).show(control.Report{Text: forged, Why: forged})
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "root:") {
			t.Errorf("forged: %q", line)
		}
	}
}
