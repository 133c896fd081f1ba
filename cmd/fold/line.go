// Package fold fits lines into the width of a terminal.
package fold

import (
	"strings"
	"unicode/utf8"
)

// Line breaks a line at its words where it is longer than width, and indents the rest of it. A width of 0 has room for all.
func Line(line string, width, indent int) string {
	if width == 0 || utf8.RuneCountInString(line) <= width {
		return line + "\n"
	}
	indent = min(indent, width/2)
	cut := strings.LastIndex(string([]rune(line)[:width+1]), " ")
	if cut <= indent { // one long word
		cut = len(string([]rune(line)[:width]))
	}
	rest := strings.TrimLeft(line[cut:], " ")
	return strings.TrimRight(line[:cut], " ") + "\n" + Line(strings.Repeat(" ", indent)+rest, width, indent)
}
