package unitfile

import (
	"fmt"
	"strings"
)

// unquoted are the characters that mean themselves outside of quotes.
const unquoted = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@+=:,./-_{}[]()<>?&!*~^|$%"

// word is one argument of a command line as systemd reads it: "Command lines", "Quoting" and "Specifiers" in systemd.service(5),
// systemd.syntax(7) and systemd.unit(5). systemd removes the quotes first, then replaces the specifiers, and variables when it starts the
// service.
func word(text string) string {
	return path(strings.ReplaceAll(text, "$", "$$"))
}

// path is the program of a command line. systemd replaces no variable there.
func path(text string) string {
	text = strings.ReplaceAll(text, "%", "%%")
	if text != "" && strings.Trim(text, unquoted) == "" {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f: // a line has to be valid UTF-8, and an argument need not be
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// line has the words of one flag, or of a command, behind each other.
func line(words []string) string {
	written := make([]string, len(words))
	for i, w := range words {
		written[i] = word(w)
	}
	return strings.Join(written, " ")
}
