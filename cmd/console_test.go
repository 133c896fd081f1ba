package cmd

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gracerun/grace/internal/terminal"
	"github.com/rs/zerolog"
)

func logged(colored bool) string {
	zerolog.TimeFieldFormat = timeFormat
	var text strings.Builder
	log := zerolog.New(newConsole(&text, colored))
	for _, level := range []zerolog.Level{zerolog.DebugLevel, zerolog.InfoLevel, zerolog.WarnLevel, zerolog.ErrorLevel} {
		log.WithLevel(level).Str("time", "2026-11-30T06:44:36.788Z").Int("generation", 4).Str("why", "two words").Strs("captured", []string{"tcp :80"}).Msg("upgrade failed")
	}
	return text.String()
}

func TestLogWithoutColors(t *testing.T) {
	rest := ` upgrade failed captured=["tcp :80"] generation=4 why="two words"`
	line := regexp.MustCompile(`^\d\d:\d\d:36\.788 (DBG|INF|WRN|ERR)` + regexp.QuoteMeta(rest) + "$")
	for got := range strings.Lines(logged(false)) {
		if !line.MatchString(strings.TrimRight(got, "\n")) {
			t.Errorf("wrote %q", got)
		}
	}
}

// Yellow, cyan, white and bright colors cannot be read on every background.
func TestLogCanBeReadOnBlackAndOnWhite(t *testing.T) {
	text := logged(true)
	for _, codes := range regexp.MustCompile(`\x1b\[([0-9;]*)m`).FindAllStringSubmatch(text, -1) {
		switch codes[1] {
		case "0", green, magenta, boldRed, faint, bold:
		default:
			t.Errorf("%q is used in %q", codes[1], text)
		}
	}
	if !strings.Contains(text, "\x1b["+boldRed+"mERR") {
		t.Errorf("an error has no color: %q", text)
	}
}

func TestColorsAreWanted(t *testing.T) {
	_, terminal := terminal.Open(t)
	for _, c := range []struct {
		term, noColor string
		want          bool
	}{
		{"xterm", "", true},
		{"xterm", "1", false},
		{"dumb", "", false},
	} {
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.noColor)
		if got := colored(terminal); got != c.want {
			t.Errorf("TERM=%s NO_COLOR=%s: %v", c.term, c.noColor, got)
		}
	}
}
