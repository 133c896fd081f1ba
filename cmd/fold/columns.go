package fold

import (
	"os"

	"golang.org/x/term"
)

// Columns is the width of the terminal, and 0 if f is none or does not tell.
func Columns(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(0, width)
}
