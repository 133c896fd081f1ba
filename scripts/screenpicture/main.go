// Screenpicture turns the captured screen of a terminal (tmux capture-pane -p -e), read from stdin, into an SVG picture.
package main

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

func main() {
	rows, err := readRows(os.Stdin)
	if err == nil {
		_, err = io.WriteString(os.Stdout, picture(rows))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "screenpicture:", err)
		os.Exit(1)
	}
}

// look is how a piece of text is drawn.
type look struct {
	color       string
	bold, faint bool
}

// piece is text of one look, and the column it begins in.
type piece struct {
	look
	column int
	text   string
}

const foreground, background = "#c9d1d9", "#0d1117"

// colors are those that the codes 30 to 37 stand for.
var colors = [...]string{"#484f58", "#f85149", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4"}

// readRows returns the rows down to the last one that is not empty.
func readRows(in io.Reader) ([][]piece, error) {
	var rows [][]piece
	last := 0
	lines := bufio.NewScanner(in)
	now := look{color: foreground}
	for lines.Scan() {
		var row []piece
		row, now = split(strings.TrimRight(lines.Text(), " "), now)
		rows = append(rows, row)
		if len(row) > 0 {
			last = len(rows)
		}
	}
	return rows[:last], lines.Err()
}

// split cuts a line at its escape sequences. It returns the look that is in force at the end of it.
func split(line string, now look) ([]piece, look) {
	var row []piece
	column := 0
	for line != "" {
		text, rest, found := strings.Cut(line, "\x1b[")
		if strings.TrimSpace(text) != "" {
			row = append(row, piece{now, column, text})
		}
		column += utf8.RuneCountInString(text)
		line = rest
		if found {
			codes, after, _ := strings.Cut(rest, "m")
			now = now.with(codes)
			line = after
		}
	}
	return row, now
}

// with applies the codes of one escape sequence.
func (l look) with(codes string) look {
	list := strings.Split(codes, ";")
	if len(list) == 3 && list[0] == "38" { // 38;5;N: color N of 256, of which the first eight are 30 to 37
		list = []string{"3" + list[2]}
	}
	for _, code := range list {
		n, _ := strconv.Atoi(code)
		switch {
		case n == 0:
			l = look{color: foreground}
		case n == 1:
			l.bold = true
		case n == 2:
			l.faint = true
		case n == 39:
			l.color = foreground
		case n >= 30 && n < 38:
			l.color = colors[n-30]
		}
	}
	return l
}

// Sizes in pixels. The place and the length of each word are stated, so that columns stay in line whatever font the reader has.
const (
	cellWidth  = 8
	cellHeight = 17
	margin     = 16
)

func picture(rows [][]piece) string {
	columns := 80
	for _, row := range rows {
		for _, p := range row {
			columns = max(columns, p.column+utf8.RuneCountInString(p.text))
		}
	}
	var b strings.Builder
	width, height := 2*margin+columns*cellWidth, 2*margin+len(rows)*cellHeight
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n", width, height, width, height)
	fmt.Fprintf(&b, "<style>text { font: 13.3px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; white-space: pre }</style>\n")
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" rx=\"8\" fill=\"%s\"/>\n", background)
	for y, row := range rows {
		for _, p := range row {
			b.WriteString(p.svg(margin + y*cellHeight + cellHeight*3/4))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p piece) svg(y int) string {
	style := fmt.Sprintf("fill=%q", p.color)
	if p.bold {
		style += ` font-weight="bold"`
	}
	if p.faint {
		style += ` opacity="0.6"`
	}
	var b strings.Builder
	column := p.column
	for _, word := range strings.SplitAfter(p.text, "  ") {
		text := strings.TrimSpace(word)
		indent := len(word) - len(strings.TrimLeft(word, " "))
		if text != "" {
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" textLength=\"%d\" %s>%s</text>\n",
				margin+(column+indent)*cellWidth, y, utf8.RuneCountInString(text)*cellWidth, style, html.EscapeString(text))
		}
		column += utf8.RuneCountInString(word)
	}
	return b.String()
}
