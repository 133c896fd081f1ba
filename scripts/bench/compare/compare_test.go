package compare

import (
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
)

func TestSeries(t *testing.T) {
	for _, c := range []struct {
		of   series
		want string
	}{
		{nil, "-"},
		{series{0, 0}, "0"},
		{series{3, 1, 2}, "2 (1..3)"},
		{series{1.5, 12.25}, "6.88 (1.50..12.2)"},
		{series{1234.5, 100.2}, "667 (100..1234)"},
	} {
		if got := c.of.String(); got != c.want {
			t.Errorf("%v is shown as %q, want %q", []float64(c.of), got, c.want)
		}
	}
	if got := (series{0, 4, -1, 2}).positive(); len(got) != 2 || got.median() != 3 {
		t.Errorf("positive: %v", got)
	}
}

// one has lost so many requests of two spaced upgrades, and took so many milliseconds where a bare start takes two.
func one(tool string, end ending, lost uint64, took float64) result {
	c := newCounted()
	c.By[load.NewConnection], c.By[load.Stream], c.How[load.Lost], c.Requests = lost, 7, lost+7, 100
	return result{
		task: task{Tool: tool, Scenario: spacedName, Ending: end}, counted: c, Asked: 2, Served: 2,
		Times: []float64{took}, Bare: []float64{2},
	}
}

func some() []result {
	return []result{
		one("grace held", byShutdown, 0, 6), one("grace held", byShutdown, 0, 8), one("grace captured", byShutdown, 2, 3),
		one("nginx reload", byItself, 6, 2), one("start_server", byDrain, 0, 4), one("start_server", byShutdown, 8, 5), {task: task{Tool: "tableflip", Ending: byDrain, Scenario: spacedName}, Failure: "why\nand more"},
	}
}

func TestTables(t *testing.T) {
	text := ""
	for _, table := range tables(some()) {
		text += table.String()
	}
	for _, want := range []string{
		"| grace held, shutdown | 2 | **0** | 200 | 4, 4 | 0 | 0 | 0 | 0 | 0 | 14 | 14 lost | 0 |\n",
		"| nginx reload | 1 | 3 | 100 | 2, 2 | 6 | 0 |",
		"| grace held, shutdown | 7 (6..8) | 2 | 3.50 (3..4) |  |  |  |\n",
		"| tableflip, drain | spaced | why |\n",
		"| requests lost for each spaced upgrade | shutdown | 0 (grace held) | 3 (nginx reload) | yes |\n",
		"| time of a spaced upgrade, beside a bare start | shutdown | 1.50 (grace captured) | 2.50 (start_server) | yes |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the tables do not have %q:\n%s", want, text)
		}
	}
	for _, unwanted := range []string{"### Upgrades back to back", "| tableflip, drain | 1 |"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("the tables have %q, which was not measured:\n%s", unwanted, text)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		grace, other float64
		want         string
	}{{0, 0, "equal"}, {1.001, 1.002, "equal"}, {1, 2, "yes"}, {2, 1, "**no**"}} {
		if got := verdict(c.grace, c.other); got != c.want {
			t.Errorf("%v beside %v: %s, want %s", c.grace, c.other, got, c.want)
		}
	}
}

func TestReplaceBetween(t *testing.T) {
	page := "before\n" + beginMark + "old\n" + endMark + "after\n"
	got, err := replaceBetween(page, "new")
	if want := "before\n" + beginMark + "\nnew\n" + endMark + "after\n"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := replaceBetween("no marks", "new"); err == nil {
		t.Error("a page without marks was written")
	}
}

func TestTasks(t *testing.T) {
	r, err := parse([]string{"--rounds", "3", "--tools", "grace-held,nginx-reload"})
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := choose(r.tools, tools(), func(t tool) string { return t.name })
	if err != nil || names(chosen) != "grace-held, nginx-reload" {
		t.Fatalf("%s, %v", names(chosen), err)
	}
	count := map[string]int{}
	for _, task := range r.tasks(chosen, scenarios()) {
		count[task.Tool+", "+task.Scenario]++
	}
	for what, want := range map[string]int{"grace held, spaced": 9, "nginx reload, spaced": 3, "grace held, never": 1, "nginx reload, never": 0, "nginx reload, crash": 1, "grace held, slow start": 1} {
		if count[what] != want {
			t.Errorf("%s is tried %d times, want %d", what, count[what], want)
		}
	}
	r.endings = "die"
	if got := r.endingsOf(scenarios()[0], chosen[0]); len(got) != 1 || got[0] != byDying {
		t.Errorf("the endings are %v, want die only", got)
	}
	if _, err := choose("none-such", tools(), func(t tool) string { return t.name }); err == nil {
		t.Error("an unknown tool was found")
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]stat{
		"7 (a) b) S 12 1 1": {12, false},
		"7 (x) Z 3 1":       {3, true},
	} {
		if got := parseStat(text); got != want {
			t.Errorf("%q is %+v, want %+v", text, got, want)
		}
	}
}
