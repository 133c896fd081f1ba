package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var (
	codeSpan = regexp.MustCompile("`[^`]+`")
	longFlag = regexp.MustCompile(`--[a-z][a-z-]*`)
)

// TestMigratingPages fails when a page for users of another supervisor names a flag or a command of grace that is not there.
func TestMigratingPages(t *testing.T) {
	pages, err := filepath.Glob("../docs/migrating/*.md")
	if err != nil || len(pages) < 8 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for line := range strings.Lines(string(text)) {
			for _, code := range ofGrace(line) {
				named++
				checkCode(t, filepath.Base(page), code)
			}
		}
		if named == 0 {
			t.Errorf("%s names nothing of grace", page)
		}
	}
}

// ofGrace gives the code in a line that belongs to grace: a command line that begins with it, or code spans, but for
// those in the first column of a table, which belong to the other program.
func ofGrace(line string) []string {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "grace ") {
		return []string{line}
	}
	if row, ok := strings.CutPrefix(line, "| "); ok {
		_, line, _ = strings.Cut(row, " | ")
	}
	var code []string
	for _, span := range codeSpan.FindAllString(line, -1) {
		code = append(code, strings.Trim(span, "`"))
	}
	return code
}

// checkCode looks up a subcommand of grace and its flags; flags alone are those of grace run. What follows "-- " is the app's.
func checkCode(t *testing.T, page, code string) {
	t.Helper()
	if strings.HasPrefix(code, "-- ") {
		return
	}
	code, _, _ = strings.Cut(code, " -- ")
	root := newRoot()
	command, _, err := root.Find([]string{"run"})
	words := strings.Fields(code)
	if len(words) > 1 && words[0] == "grace" {
		command, _, err = root.Find(words[1:2])
	}
	if err != nil || command == root {
		t.Errorf("%s: `%s`: no such command (%v)", page, code, err)
		return
	}
	for _, flag := range longFlag.FindAllString(code, -1) {
		if !hasFlag(command, strings.TrimPrefix(flag, "--")) {
			t.Errorf("%s: `%s`: %s has no %s", page, code, command.CommandPath(), flag)
		}
	}
}

func hasFlag(c *cobra.Command, name string) bool {
	return name == "help" || c.Flags().Lookup(name) != nil || c.InheritedFlags().Lookup(name) != nil
}
