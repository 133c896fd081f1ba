package cmd

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// table has rows of cells, each below a heading. Empty columns are left out.
type table struct{ rows [][]string }

func newTable(headings ...string) *table { return &table{[][]string{headings}} }

func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = oneLine(c)
	}
	t.rows = append(t.rows, cells)
}

// print prints nothing if the table has no rows.
func (t *table) print(w io.Writer) {
	if len(t.rows) == 1 {
		return
	}
	aligned := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintln(aligned, strings.Join(t.shown(row), "\t"))
	}
	_ = aligned.Flush() // to a strings.Builder
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
