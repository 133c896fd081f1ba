package gracelog

import (
	"strings"
	"testing"
	"time"
)

func TestEntries(t *testing.T) {
	const log = `{"level":"info","generation":3,"took_ms":12.5,"pid":7,"message":"generation ready","why":"x"}
half a line {"level":"warn","message":"stopping"}
panic: oops
`
	want := []Entry{
		{Level: "info", Generation: 3, Took: 12.5, PID: 7, Message: "generation ready", Why: "x"},
		{Level: "warn", Message: "stopping"},
		{},
	}
	texts := []string{"generation ready: x", "stopping", "panic: oops"}
	n := 0
	err := Read(strings.NewReader(log), func(e Entry) {
		want[n].Text = strings.Split(log, "\n")[n]
		if e.Read.IsZero() {
			t.Error("it is not known when the line was read")
		}
		e.Read = time.Time{}
		if e != want[n] || e.String() != texts[n] {
			t.Errorf("line %d: %+v, shown as %q", n, e, e)
		}
		n++
	})
	if err != nil || n != len(want) {
		t.Errorf("%d lines, %v", n, err)
	}
}
