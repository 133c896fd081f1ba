package cmd

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/gracerun/grace/cmd/fold"
)

// table has rows of cells, each below a heading. Empty columns are left out. What is too wide for a terminal comes below its
// row, a line for each cell.
type table struct{ rows [][]string }

func newTable(headings ...string) *table { return &table{[][]string{headings}} }

func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = oneLine(c)
	}
	t.rows = append(t.rows, cells)
}

const columnGap = 2

// print prints nothing if the table has no rows. A width of 0 is that of paper, which has room for all.
func (t *table) print(w io.Writer, width int) {
	if len(t.rows) == 1 {
		return
	}
	var rows [][]string
	for _, row := range t.rows {
		rows = append(rows, t.shown(row))
	}
	beside := fitting(rows, width)
	for i, line := range strings.Split(strings.TrimRight(aligned(rows, beside), "\n"), "\n") {
		fmt.Fprintln(w, line)
		if i > 0 && beside < len(rows[0]) {
			io.WriteString(w, below(rows[0][beside:], rows[i][beside:], width)) // to a strings.Builder
		}
	}
}

// fitting is how many columns have room beside each other.
func fitting(rows [][]string, width int) (n int) {
	if width == 0 {
		return len(rows[0])
	}
	for used := 0; n < len(rows[0]); n++ {
		widest := 0
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(row[n]))
		}
		if used+widest > width {
			return max(1, n)
		}
		used += widest + columnGap
	}
	return n
}

func aligned(rows [][]string, columns int) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, columnGap, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row[:columns], "\t"))
	}
	_ = w.Flush() // to a strings.Builder
	return text.String()
}

// below has the cells of one row under each other, and leaves out empty ones.
func below(headings, cells []string, width int) string {
	longest := 0
	for _, h := range headings {
		longest = max(longest, len(h))
	}
	var text strings.Builder
	for i, cell := range cells {
		if cell != "" {
			text.WriteString(fold.Line(fmt.Sprintf("  %-*s  %s", longest, headings[i], cell), width, longest+4))
		}
	}
	return text.String()
}

func (t *table) shown(row []string) []string {
	var cells []string
	for i, cell := range row {
		if slices.ContainsFunc(t.rows[1:], func(r []string) bool { return r[i] != "" }) {
			cells = append(cells, cell)
		}
	}
	return cells
}

// number is empty if n is unknown.
func number(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}

// positive is empty for 0.
func positive(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// age shows the two largest units: 3d4h, 12m5s.
func age(d time.Duration) string {
	d = max(0, d.Truncate(time.Second))
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func memory(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

func cpu(s float64) string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f s", s)
}

// commandLine quotes the words that a shell would not take as they are.
func commandLine(words []string) string {
	var quoted []string
	for _, w := range words {
		plain := w != "" && !strings.ContainsFunc(w, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune("\"'`$&|;<>()*?[]#~\\!{}", r)
		})
		if !plain {
			w = strconv.Quote(w)
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}
