package demo

import (
	"errors"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gracerun/grace/cmd/load"
)

// sample is a demo in its middle.
func sample() *record {
	r := newRecord(options{upgrades: 10, duration: 20 * time.Second, clients: 40})
	r.elapsed, r.generation = 7*time.Second, 4
	for n := range 3 {
		r.upgrades = append(r.upgrades, &upgrade{
			began: time.Duration(n+1) * 2 * time.Second, replaced: n + 1, by: n + 2,
			answered: time.Duration(21+n) * time.Millisecond, gone: time.Second,
		})
	}
	for n := range 20 {
		r.moments = append(r.moments, moment{0.3, float64(n)})
	}
	return r
}

// wide is the longest that a demo's numbers get.
func wide() *record {
	r := sample()
	r.options.upgrades, r.duration, r.elapsed = 99, time.Hour, time.Hour
	last := r.upgrades[2]
	last.by, last.replaced, last.answered, last.gone = 100, 99, 999*time.Millisecond, 99*time.Second
	r.moments = append(r.moments, moment{59000, 60000})
	r.tally.Kinds = map[load.Kind]*load.Counts{}
	for _, m := range mix {
		r.tally.Kinds[m.kind] = &load.Counts{Requests: 9_999_999, Failed: map[load.Failure]uint64{load.Reset: 99_999}}
	}
	r.beside.open = slices.Repeat([]int{plainClients}, r.columns)
	r.beside.tally.Kinds = map[load.Kind]*load.Counts{load.KeepAliveGet: {Requests: 9_999_999, Failed: map[load.Failure]uint64{load.Reset: 99_999}}}
	return r
}

var escape = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func TestFrameFitsTheTerminal(t *testing.T) {
	for name, r := range map[string]*record{
		"begin":  newRecord(options{upgrades: 10, duration: 20 * time.Second, clients: 40}),
		"middle": sample(),
		"wide":   wide(),
	} {
		for _, r.paint.on = range []bool{false, true} {
			rows := r.frame()
			if len(rows) > 24 {
				t.Errorf("%s: %d rows", name, len(rows))
			}
			for _, row := range rows {
				if width := utf8.RuneCountInString(escape.ReplaceAllString(row, "")); width > 80 {
					t.Errorf("%s: %d columns in %q", name, width, row)
				}
				if !r.paint.on && strings.Contains(row, "\x1b") {
					t.Errorf("%s: colour in %q", name, row)
				}
			}
		}
	}
}

func TestFrameFitsANarrowTerminal(t *testing.T) {
	for _, width := range []int{40, 60, 79} {
		for name, r := range map[string]*record{"begin": newRecord(options{upgrades: 10, duration: 20 * time.Second, clients: 40}), "middle": sample()} {
			r.fit(width)
			rows := r.frame()
			for _, row := range slices.Concat(rows[:len(rows)-1], r.prose(r.times())) { // the frame's last row is a sentence, which the terminal cuts
				if got := utf8.RuneCountInString(row); got > width {
					t.Errorf("%s in %d columns: %d in %q", name, width, got, row)
				}
			}
		}
	}
}

// Yellow, cyan and bright colors cannot be read on every background.
func TestDemoCanBeReadOnBlackAndOnWhite(t *testing.T) {
	r := wide()
	r.paint.on = true
	for _, codes := range regexp.MustCompile(`\x1b\[([0-9;]*)m`).FindAllStringSubmatch(strings.Join(r.frame(), "\n")+r.summary(errors.New("cut")), -1) {
		if !slices.Contains([]string{"0", "1", "2", "32", "35", "1;31", "38;5;2", "38;5;5", "39"}, codes[1]) {
			t.Errorf("%q is used", codes[1])
		}
	}
}

func TestFrameTellsWhatHappens(t *testing.T) {
	r := wide()
	text := strings.Join(r.frame(), "\n")
	for _, want := range []string{
		"generation 4 serves", "upgrade 3 of 99", "3600.0 of 3600.0 s", "9,999,999  99,999",
		"upgrade 3: generation 100 answered after 999 ms, 99 was gone after 99.0 s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestDrainIsDrawnToScale(t *testing.T) {
	b := beside{open: []int{0, plainClients, plainClients / 2, 1, 0, 2 * plainClients, 1}}
	if got := b.drain(6); got != "  plain  █▄▁ █" {
		t.Errorf("%q", got)
	}
}

// The rows of the picture stay where they are, whatever it shows.
func TestPictureKeepsItsHeight(t *testing.T) {
	r := sample()
	height := len(r.picture())
	for _, slowest := range []float64{math.NaN(), 0.01, 99, 101, 5000} {
		r.moments = append(r.moments, moment{0.2, slowest})
		if got := len(r.picture()); got != height {
			t.Errorf("%d rows with %v ms, %d before", got, slowest, height)
		}
	}
}

func TestGraphIsDrawnToScale(t *testing.T) {
	r := sample()
	r.moments = []moment{{0.1, 100}, {0.1, 100}, {math.NaN(), math.NaN()}, {0.1, 100}, {1, 1}}
	graph := r.graph()
	if top := graph[0]; !strings.HasPrefix(top, "   100 ┼─╴╶") {
		t.Errorf("the row of 100 ms is %q", top)
	}
	if bottom := graph[9]; !strings.HasPrefix(bottom, "   0.1 ┼─╴╶") {
		t.Errorf("the row of 0.1 ms is %q", bottom)
	}
	if middle := graph[6]; !strings.HasPrefix(middle, "   1.0 ┤   ╭─") {
		t.Errorf("the row of 1 ms is %q", middle)
	}
}

func TestAxisMarksUpgrades(t *testing.T) {
	r := newRecord(options{upgrades: 2, duration: time.Duration(pictureColumns) * time.Second})
	r.upgrades = []*upgrade{{began: 0}, {began: 3500 * time.Millisecond}, {began: time.Hour}}
	axis := []rune(strings.TrimSpace(r.axis()))[1:]
	for column, mark := range axis {
		marked := column == 0 || column == 3 || column == pictureColumns-1
		if marked != (mark == '▲') {
			t.Errorf("column %d is %c", column, mark)
		}
	}
}

func TestSummary(t *testing.T) {
	good, bad := sample(), wide()
	bad.upgrades[1].failed = "no luck"
	for name, tt := range map[string]struct {
		r    *record
		err  error
		want []string
	}{
		"good": {good, nil, []string{"generation: 22 ms, at most 23 ms", "generation:            1.0 s, at most 1.0 s", "none refused, reset or lost."}},
		"bad":  {bad, nil, []string{"upgrade 2: no luck", "599,994 reset", "599,994 failed."}},
		"cut":  {good, errors.New("no more"), []string{"did not come to its end: no more", "none refused"}},
		"none": {newRecord(short3), errors.New("no start"), []string{"0 upgrades", "no start"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := tt.r.summary(tt.err)
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in\n%s", want, text)
				}
			}
		})
	}
}

func TestScreenRestoresTheTerminal(t *testing.T) {
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s := newScreen(out)
	s.draw(sample())
	s.draw(wide())
	s.close()
	out.Seek(0, io.SeekStart)
	text, _ := io.ReadAll(out)
	inside, ok := strings.CutPrefix(string(text), enterScreen)
	if !ok {
		t.Error("the screen is not entered first")
	}
	inside, ok = strings.CutSuffix(inside, leaveScreen)
	if !ok {
		t.Error("the screen is not left last")
	}
	if frames := strings.Count(inside, beginFrame); frames != 2 {
		t.Errorf("%d frames", frames)
	}
	for _, clearing := range []string{"\x1b[2J", "\x1b[3J"} {
		if strings.Contains(inside, clearing) {
			t.Error("the screen is cleared between frames, which flickers")
		}
	}
}

func TestNoColour(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	if newPalette(true).on {
		t.Error("colour in spite of NO_COLOR")
	}
	t.Setenv("NO_COLOR", "")
	if !newPalette(true).on || newPalette(false).on {
		t.Error("colour is for terminals")
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", 1000001: "1,000,001"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
	for d, want := range map[time.Duration]string{time.Millisecond: "1 ms", 999 * time.Millisecond: "999 ms", 1500 * time.Millisecond: "1.5 s"} {
		if got := brief(d); got != want {
			t.Errorf("%v is written %s", d, got)
		}
	}
	for v, want := range map[float64]string{0.04: "0.0", 9.94: "9.9", 9.96: "10", 1234: "1234"} {
		if got := short(v); got != want {
			t.Errorf("%v is written %s", v, got)
		}
	}
}
