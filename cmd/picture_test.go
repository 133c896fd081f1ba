package cmd

import (
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

func TestSentence(t *testing.T) {
	for _, c := range []struct {
		report control.Report
		want   string
	}{
		{control.Report{Text: "stopping", Within: 30}, "stopping (within 30 s)"},
		{control.Report{Text: "generation ready", Generation: 5, Took: 0.4213}, "generation 5 ready (0.421 s)"},
		{control.Report{Text: "instance ended", Generation: 5, PID: 7, Took: 1.25, Why: "exit status 1"}, "generation 5: instance ended (pid 7, 1.2 s): exit status 1"},
	} {
		if got := sentence(c.report); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestProgressOnATerminal(t *testing.T) {
	var text strings.Builder
	p := newProgress(&text, true)
	p.began = p.began.Add(-72 * time.Second)
	p.show(control.Report{Text: "app says", Why: "\x1b[2Jhello"})
	if want := "  72.0 s  app says: ?[2Jhello\n"; text.String() != want {
		t.Errorf("got %q", text.String())
	}
}

func TestProgressInANarrowTerminal(t *testing.T) {
	var text strings.Builder
	p := newProgress(&text, true)
	p.width = 40
	p.began = p.began.Add(-72 * time.Second)
	p.show(control.Report{Text: "generation ready", Generation: 5, Why: "it serves again"})
	if want := "  72.0 s  generation 5 ready: it serves\n          again\n"; text.String() != want {
		t.Errorf("got %q", text.String())
	}
}

func TestCommandLine(t *testing.T) {
	for want, words := range map[string][]string{
		"":                             nil,
		"./app -v --listen=:80":        {"./app", "-v", "--listen=:80"},
		`sh -c "a; b" "" "x\n\x1b[2J"`: {"sh", "-c", "a; b", "", "x\n\x1b[2J"},
	} {
		if got := commandLine(words); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": -time.Second, "59s": 59900 * time.Millisecond, "1m0s": time.Minute, "59m59s": time.Hour - 1,
		"1h0m": time.Hour + time.Second, "23h59m": 24*time.Hour - 1, "1d0h": 24 * time.Hour, "400d5h": 9605 * time.Hour,
	} {
		if got := age(d); got != want {
			t.Errorf("%v became %s, want %s", d, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	if got := strings.Join(fit("äöü\nb\nc\n", 2, 2), "|"); got != "äö|b" {
		t.Errorf("got %q", got)
	}
}

func TestNarrowTable(t *testing.T) {
	upgrades := newTable("UPGRADE", "TOOK", "RESULT", "WHY")
	upgrades.add("1 to 2", "2.0 s", "upgraded", "")
	upgrades.add("2 to 3", "0.031 s", "failed", "instance ended: exit status 2, and so on")
	for width, want := range map[int]string{
		0: "UPGRADE  TOOK     RESULT    WHY\n1 to 2   2.0 s    upgraded  \n2 to 3   0.031 s  failed    instance ended: exit status 2, and so on\n",
		40: "UPGRADE  TOOK     RESULT\n1 to 2   2.0 s    upgraded\n2 to 3   0.031 s  failed\n" +
			"  WHY  instance ended: exit status 2,\n       and so on\n",
		20: "UPGRADE  TOOK\n1 to 2   2.0 s\n  RESULT  upgraded\n2 to 3   0.031 s\n" +
			"  RESULT  failed\n  WHY     instance\n          ended:\n          exit\n          status 2,\n          and so on\n",
		1: "U",
	} {
		var text strings.Builder
		upgrades.print(&text, width)
		if got := text.String(); !strings.HasPrefix(got, want) || width != 1 && got != want {
			t.Errorf("in %d columns:\n%s", width, got)
		}
	}
}
