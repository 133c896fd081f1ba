package cmd

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// screen is a terminal that is drawn over again and again, or something else that gets
// one picture after another.
type screen struct {
	terminal bool
	last     string
}

// The control sequences are those of xterm, which all terminals of today have.
const (
	enterScreen = "\033[?1049h\033[?25l"
	leaveScreen = "\033[?25h\033[?1049l"
	home        = "\033[H"
	eraseLine   = "\033[K"
	eraseBelow  = "\033[J"
)

func newScreen() *screen {
	s := &screen{terminal: term.IsTerminal(int(os.Stdout.Fd()))}
	if s.terminal {
		_ = show(enterScreen) // what cannot be written is seen at the first picture
	}
	return s
}

func (s *screen) show(text string) error {
	s.last = text
	if !s.terminal {
		return show(text)
	}
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return fmt.Errorf("cannot tell the size of the terminal: %w", err)
	}
	if width <= 0 || height <= 0 { // nobody has told it, as with a pseudo-terminal of a script
		width, height = 80, 24
	}
	return show(home + strings.Join(fit(text, width, height), eraseLine+"\r\n") + eraseLine + eraseBelow)
}

// close leaves the last picture.
func (s *screen) close() error {
	if !s.terminal {
		return nil
	}
	return show(leaveScreen + s.last)
}

// fit cuts what a terminal has no room for.
func fit(text string, width, height int) []string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[:min(len(lines), max(1, height))]
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:width])
		}
	}
	return lines
}
