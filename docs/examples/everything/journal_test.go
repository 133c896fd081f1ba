//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// entries is the journal as it is at the end: what really happened.
type entries struct {
	lines []string
	at    map[string]int // the number of a line
	jobs  map[string]int // the number of the line that begins so, up to the pid
}

const by = " by "

func readEntries(t *testing.T, folder string) *entries {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "journal.txt"))
	if err != nil {
		t.Fatal(err)
	}
	j := &entries{strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), map[string]int{}, map[string]int{}}
	for n, line := range j.lines {
		if _, twice := j.at[line]; twice {
			t.Errorf("%q is in the journal twice", line)
		}
		j.at[line] = n
		if job, _, ok := strings.Cut(line, by); ok && strings.HasPrefix(line, "job ") {
			j.jobs[job+by] = n
		}
	}
	return j
}

// mustHave wants each line to be there; none is twice.
func (j *entries) mustHave(t *testing.T, lines []string) {
	t.Helper()
	if len(lines) == 0 {
		t.Error("a client has not had one entry acknowledged")
	}
	for _, line := range lines {
		if _, ok := j.at[line]; !ok {
			t.Errorf("%q was acknowledged, and is not in the journal", line)
		}
	}
}

// find gives the number and the rest of a job's line.
func (j *entries) find(beginning string) (n int, rest string, ok bool) {
	if n, ok = j.jobs[beginning]; ok {
		rest = strings.TrimPrefix(j.lines[n], beginning)
	}
	return n, rest, ok
}
