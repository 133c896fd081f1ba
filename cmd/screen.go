package cmd

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// screen redraws a text on a terminal, or writes it again if stdout is none, or one without control sequences.
type screen struct {
	terminal bool
	last     string
}

// The control sequences are xterm's, which all current terminals understand.
const (
	enterScreen = "\033[?1049h\033[?25l"
	leaveScreen = "\033[?25h\033[?1049l"
	home        = "\033[H"
	eraseLine   = "\033[K"
	eraseBelow  = "\033[J"
)

func newScreen() *screen {
	s := &screen{terminal: term.IsTerminal(int(os.Stdout.Fd())) && !dumb()}
	if s.terminal {
		_ = show(enterScreen) // a failing write shows at the first show
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
		return fmt.Errorf("cannot read the size of the terminal: %w", err)
	}
	if width <= 0 || height <= 0 { // unknown, as with the pseudo-terminal of a script
		width, height = 80, 24
	}
	return show(home + strings.Join(fit(text, width, height), eraseLine+"\r\n") + eraseLine + eraseBelow)
}

// close restores the terminal and prints the last text.
func (s *screen) close() error {
	if !s.terminal {
		return nil
	}
	return show(leaveScreen + s.last)
}

// fit cuts the text to the size of the terminal.
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
