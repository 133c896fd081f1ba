package cmd

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli anew")

const referenceDir = "../docs/cli"

// TestReference fails when docs/cli is not what the commands say. go test ./cmd -run Reference -update writes it.
func TestReference(t *testing.T) {
	pages := map[string]string{}
	addPages(pages, newRoot())
	if *update {
		writeReference(t, pages)
	}
	written, err := filepath.Glob(filepath.Join(referenceDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range written {
		if _, ok := pages[filepath.Base(path)]; !ok {
			t.Errorf("%s describes no command: remove it", path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if got, err := os.ReadFile(filepath.Join(referenceDir, name)); err != nil || string(got) != pages[name] {
			t.Errorf("docs/cli/%s is stale (%v): run go test ./cmd -run Reference -update", name, err)
		}
	}
}

func writeReference(t *testing.T, pages map[string]string) {
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(referenceDir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "_") + ".md" }

func addPages(pages map[string]string, c *cobra.Command) {
	pages[pageName(c)] = page(c)
	for _, below := range c.Commands() {
		if !below.Hidden {
			addPages(pages, below)
		}
	}
}

func page(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s.\n", c.CommandPath(), c.Short)
	if c.Runnable() {
		addText(&b, "", c.UseLine())
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "\nOther name: `grace %s`.\n", strings.Join(c.Aliases, "`, `grace "))
	}
	addText(&b, "", c.Long)
	addText(&b, "## Examples\n\n", c.Example)
	addFlags(&b, c.LocalFlags())
	addCommands(&b, c)
	return b.String()
}

// addText keeps the layout of what is written for terminals.
func addText(b *strings.Builder, heading, text string) {
	if text != "" {
		fmt.Fprintf(b, "\n%s```text\n%s\n```\n", heading, strings.TrimRight(text, "\n"))
	}
}

func addFlags(b *strings.Builder, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	b.WriteString("\n## Flags\n\n| flag | default | meaning |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, meaning := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", strings.TrimSpace("--"+f.Name+" "+kind), inCode(defaultOf(f)), strings.ReplaceAll(meaning, "|", `\|`))
	})
}

func inCode(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

func addCommands(b *strings.Builder, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	b.WriteString("\n## Commands\n\n")
	for _, below := range c.Commands() {
		if !below.Hidden {
			fmt.Fprintf(b, "- [%s](%s): %s\n", below.CommandPath(), pageName(below), below.Short)
		}
	}
}
