package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the code says into docs/architecture.md")

// drawn are the packages of the program and its libraries; the rest are tests, scripts and examples.
func drawn(importPath string) bool {
	name := inModule(importPath)
	for _, other := range []string{"docs", "internal", "scripts", "test", "cmd/demo", "cmd/load"} {
		if name == other || strings.HasPrefix(name, other+"/") {
			return false
		}
	}
	return true
}

// The page's picture of who imports whom is the code's.
func TestArchitecture(t *testing.T) {
	const page, begin, end = "docs/architecture.md", "```imports\n", "```"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	shown, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no block that begins with %q", page, begin)
	}
	real := importGraph(t)
	if shown == real {
		return
	}
	if !*update {
		t.Fatalf("%s shows\n%s\nand the code is\n%s\n(go test . -run Architecture -update)", page, shown, real)
	}
	if err := os.WriteFile(page, []byte(before+begin+real+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func importGraph(t *testing.T) string {
	t.Helper()
	packages := listPackages(t, ".", "linux", "./...")
	var graph strings.Builder
	for _, importer := range slices.Sorted(maps.Keys(packages)) {
		if !ours(importer) || !drawn(importer) {
			continue
		}
		var below []string
		for _, imported := range packages[importer].Imports {
			if ours(imported) && drawn(imported) {
				below = append(below, inModule(imported))
			}
		}
		if len(below) > 0 {
			fmt.Fprintf(&graph, "%s -> %s\n", shortName(importer), strings.Join(below, ", "))
		}
	}
	return graph.String()
}

func shortName(importPath string) string {
	if importPath == module {
		return "main"
	}
	return inModule(importPath)
}
