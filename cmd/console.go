package cmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

// Codes of colors that can be read on black and on white. Yellow, cyan and bright black cannot: in xterm the first two are
// pale on white, and Solarized has its background in place of the third.
const (
	green   = "32"
	magenta = "35"
	boldRed = "1;31"
	faint   = "2"
	bold    = "1"
)

var levelColors = map[string]string{"info": green, "warn": magenta, "error": boldRed, "debug": faint}

// colored says whether a file is a terminal that shows colors, and the user wants them (no-color.org).
func colored(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && !dumb()
}

// dumb is the terminal of an editor or of a log, which knows no control sequences.
func dumb() bool { return os.Getenv("TERM") == "dumb" }

// newConsole writes log lines for people.
func newConsole(out io.Writer, colored bool) zerolog.ConsoleWriter {
	paint := func(code, text string) string {
		if !colored || code == "" {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	return zerolog.ConsoleWriter{
		Out:             out,
		FormatTimestamp: func(at any) string { return paint(faint, clock(at)) },
		FormatLevel: func(level any) string {
			name, _ := level.(string)
			return paint(levelColors[name], short(name))
		},
		FormatMessage: func(message any) string {
			text, _ := message.(string)
			return paint(bold, text)
		},
		FormatFieldName: func(name any) string { return paint(faint, fmt.Sprint(name)+"=") },
		NoColor:         !colored,
	}
}

// clock is the time of the day of a log line.
func clock(at any) string {
	text, _ := at.(string)
	then, err := time.Parse(zerolog.TimeFieldFormat, text)
	if err != nil {
		return text
	}
	return then.Local().Format("15:04:05.000")
}

// short is the level in three letters.
func short(level string) string {
	parsed, _ := zerolog.ParseLevel(level) // the level is one of zerolog's own
	if known := zerolog.FormattedLevels[parsed]; known != "" {
		return known
	}
	return strings.ToUpper(level)
}
