package demo

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// view shows the demo while it lasts.
type view interface {
	draw(*record)
	upgraded(*record, *upgrade) // an upgrade is over
	close()
}

func (o options) view() view {
	if o.live() {
		return newScreen(os.Stdout)
	}
	return lines{os.Stdout}
}

// lines is the view without a terminal: a line for each upgrade.
type lines struct{ out io.Writer }

func (l lines) draw(*record) {}
func (l lines) close()       {}

func (l lines) upgraded(r *record, u *upgrade) {
	fmt.Fprintf(l.out, "%6s  %s; %s requests, %s failed\n", seconds(r.elapsed), r.outcome(u), thousands(r.requests()), thousands(r.failures()))
}

// Control sequences of ECMA-48 and xterm. The alternate screen keeps what was on the terminal; without wrapping, a line that is
// too long is cut by the terminal; between the marks of a frame (mode 2026), terminals that know them do not draw.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	beginFrame  = "\x1b[?2026h\x1b[H"
	endLine     = "\x1b[K"
	endFrame    = "\x1b[J\x1b[?2026l"
)

// screen is the view in a terminal. Each frame is one write over the one before.
type screen struct {
	out   *os.File
	paint palette
}

func newScreen(out *os.File) *screen {
	io.WriteString(out, enterScreen)
	return &screen{out, newPalette(true)}
}

func (s *screen) close() { io.WriteString(s.out, leaveScreen) }

func (s *screen) upgraded(*record, *upgrade) {}

func (s *screen) draw(r *record) {
	_, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil {
		height = 24
	}
	r.paint = s.paint
	rows := r.frame()
	rows = rows[:min(len(rows), height)]
	io.WriteString(s.out, beginFrame+strings.Join(rows, endLine+"\r\n")+endLine+endFrame)
}

// palette colours text, or leaves it as it is.
type palette struct{ on bool }

func newPalette(terminal bool) palette {
	return palette{terminal && os.Getenv("NO_COLOR") == ""}
}

func (p palette) sgr(code, text string) string {
	if !p.on {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p palette) bold(text string) string  { return p.sgr("1", text) }
func (p palette) faint(text string) string { return p.sgr("2", text) }
func (p palette) good(text string) string  { return p.sgr("32", text) }
func (p palette) bad(text string) string   { return p.sgr("1;31", text) }
