//go:build linux

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// Every message in the first column of a table is one that grace can say.
func TestTroubleshootingQuotesGrace(t *testing.T) {
	texts := texts(t, "supervisor", "handoff", "childproc", "cmd")
	quoted := quotedMessages(harness.Read(t, "docs/troubleshooting.md"))
	if len(texts) < 1000 || len(quoted) < 100 {
		t.Fatalf("there are only %d texts in the source, and %d messages on the page", len(texts), len(quoted))
	}
	for _, message := range quoted {
		parts := strings.Split(message, "…")
		if !slices.ContainsFunc(texts, func(text string) bool { return hasInOrder(text, parts) }) {
			t.Errorf("grace does not say %q", message)
		}
	}
}

func quotedMessages(page string) (messages []string) {
	for line := range strings.Lines(page) {
		column, isRow := strings.CutPrefix(line, "| ")
		if !isRow {
			continue
		}
		column, _, _ = strings.Cut(column, " | ")
		for _, found := range span.FindAllStringSubmatch(column, -1) {
			messages = append(messages, found[1])
		}
	}
	return messages
}

func hasInOrder(text string, parts []string) bool {
	for _, part := range parts {
		_, after, found := strings.Cut(text, strings.TrimSpace(part))
		if !found {
			return false
		}
		text = after
	}
	return true
}

// texts are the string literals of packages, and what is put together from them.
func texts(t *testing.T, roots ...string) (all []string) {
	t.Helper()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				text := textOf(n)
				all = append(all, text)
				return text == ""
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return slices.DeleteFunc(all, func(text string) bool { return text == "" })
}

// textOf is empty for what is no text.
func textOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BasicLit:
		if n.Kind == token.STRING {
			text, _ := strconv.Unquote(n.Value) // the parser has accepted it
			return text
		}
	case *ast.BinaryExpr:
		if n.Op == token.ADD {
			return textOf(n.X) + textOf(n.Y)
		}
	}
	return ""
}
