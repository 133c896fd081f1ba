//go:build linux

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

var (
	inCode  = regexp.MustCompile("(?s)```.*?```")
	ownLine = regexp.MustCompile(`(?m)^    (\S.*)$`)
	span    = regexp.MustCompile("`([^`\n]+)`")
	comment = regexp.MustCompile(`\s+# .*$`)
)

// outline is what a page says in whatever language.
type outline struct{ headings, commands, spans, links []string }

func outlineOf(text string) (o outline) {
	var code []string
	for _, block := range inCode.FindAllString(text, -1) {
		code = append(code, strings.Split(block, "\n")...)
	}
	prose := inCode.ReplaceAllString(text, "")
	for _, found := range ownLine.FindAllStringSubmatch(prose, -1) {
		code = append(code, found[1])
	}
	prose = ownLine.ReplaceAllString(prose, "")
	for _, line := range code {
		o.commands = append(o.commands, strings.TrimSpace(comment.ReplaceAllString(line, "")))
	}
	for _, found := range heading.FindAllString(prose, -1) {
		level, _, _ := strings.Cut(found, " ")
		o.headings = append(o.headings, level)
	}
	for _, found := range span.FindAllStringSubmatch(prose, -1) {
		o.spans = append(o.spans, found[1])
	}
	for _, found := range link.FindAllStringSubmatch(prose, -1) {
		o.links = append(o.links, strings.Replace(found[1], inChinese, ".md", 1)+found[2]) // a page links those of its own language
	}
	slices.Sort(o.spans)
	slices.Sort(o.links)
	return o
}

const inChinese = ".zh-CN.md"

// A page in another language has the same headings, commands, names and links as the English one.
func TestTranslatedPagesAreInStep(t *testing.T) {
	for _, page := range []string{"README", "docs/quickstart"} {
		t.Run(page, func(t *testing.T) { checkTranslation(t, page+".md", page+inChinese) })
	}
}

func checkTranslation(t *testing.T, page, translation string) {
	english, chinese := outlineOf(harness.Read(t, page)), outlineOf(harness.Read(t, translation))
	for name, both := range map[string][2][]string{
		"headings": {english.headings, chinese.headings},
		"commands": {english.commands, chinese.commands},
		"names":    {english.spans, chinese.spans},
		"links":    {english.links, chinese.links},
	} {
		if len(both[0]) < 5 {
			t.Errorf("%s: %s has only %q", name, page, both[0])
		}
		for _, missing := range without(both[0], both[1]) {
			t.Errorf("%s: %s lacks %q", name, translation, missing)
		}
		for _, more := range without(both[1], both[0]) {
			t.Errorf("%s: %s has %q, and %s does not", name, translation, more, page)
		}
		if name == "commands" && !slices.Equal(both[0], both[1]) {
			t.Error("the commands are not in the same order")
		}
	}
}

// without gives what is left of all, once for each time.
func without(all, some []string) []string {
	left := slices.Clone(all)
	for _, s := range some {
		if i := slices.Index(left, s); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	return left
}
