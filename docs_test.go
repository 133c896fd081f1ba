//go:build linux

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

var (
	link    = regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noWord  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinksLeadSomewhere looks at every page: to a file that is there, and a heading in it.
func TestLinksLeadSomewhere(t *testing.T) {
	pages := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".md") {
			return err
		}
		pages++
		for _, found := range link.FindAllStringSubmatch(harness.Read(t, path), -1) {
			checkLink(t, path, found[1], strings.TrimPrefix(found[2], "#"))
		}
		return nil
	})
	if err != nil || pages < 20 {
		t.Fatalf("%d pages, %v", pages, err)
	}
}

func checkLink(t *testing.T, page, target, anchor string) {
	t.Helper()
	to := page
	if target != "" {
		to = filepath.Join(filepath.Dir(page), target)
	}
	if _, err := os.Stat(to); err != nil {
		t.Errorf("%s: %v", page, err)
		return
	}
	if anchor != "" && !anchors(harness.Read(t, to))[anchor] {
		t.Errorf("%s: %s has no heading #%s", page, to, anchor)
	}
}

// anchors are named after the headings, as web pages of repositories do.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, found := range heading.FindAllStringSubmatch(text, -1) {
		names[strings.ReplaceAll(noWord.ReplaceAllString(strings.ToLower(found[1]), ""), " ", "-")] = true
	}
	return names
}
