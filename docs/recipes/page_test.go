package recipes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// page is what a test takes from a page: its fenced blocks. "file=NAME" in a block's info string makes it a file; "run" makes it
// the command that is tested, "beside" one that has to run too, "captured" the command without --listen, "steered" one with ?steer=true,
// "rolling" one under which four instances are replaced one by one, and "stop-first" that of an app that cannot run twice, each of whose versions has a directory below the one where it runs.
type page struct {
	files    map[string]string
	commands map[string]string
}

// readPage reads a page. The ports written in it are replaced by free ones; nothing else is.
func readPage(t *testing.T, name string, ports map[string]string) page {
	t.Helper()
	text, err := os.ReadFile(name + ".md")
	if err != nil {
		t.Fatal(err)
	}
	p := page{files: map[string]string{}, commands: map[string]string{}}
	var replacements []string // all at once: a free port may have the digits of a written one
	for written, free := range ports {
		replacements = append(replacements, written, free)
	}
	for _, b := range blocks(strings.NewReplacer(replacements...).Replace(string(text))) {
		p.add(b)
	}
	return p
}

// block is a fenced block of a page.
type block struct {
	info []string
	text string
}

func blocks(page string) (found []block) {
	var info []string
	var text strings.Builder
	for line := range strings.Lines(page) {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && info == nil:
			info = append(strings.Fields(fence), "", "")
		case isFence:
			found = append(found, block{info, text.String()})
			info = nil
			text.Reset()
		case info != nil:
			text.WriteString(line)
		}
	}
	return found
}

// kind is what the block is for, after its language.
func (b block) kind() string { return b.info[1] }

// shell takes the block apart: lines that begin with a prompt are the command, the others are what it prints.
func (b block) shell() (command, printed string) {
	for line := range strings.Lines(b.text) {
		if typed, ok := strings.CutPrefix(line, "$ "); ok {
			command += typed
		} else {
			printed += line
		}
	}
	return command, printed
}

func (p page) add(b block) {
	if file, ok := strings.CutPrefix(b.kind(), "file="); ok {
		p.files[file] = b.text
	} else if b.info[0] == "console" && b.kind() != "" {
		p.commands[b.kind()] = strings.TrimPrefix(b.text, "$ ")
	}
}

// write puts the files into a directory that every user can read: some servers leave root behind.
func (p page) write(t *testing.T) (dir string) {
	t.Helper()
	dir = p.writeTo(t, t.TempDir())
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (p page) writeTo(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range p.files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (p page) paths(dir string) (paths []string) {
	for file := range p.files {
		paths = append(paths, filepath.Join(dir, file))
	}
	return paths
}

func TestEveryPageIsTested(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range pages {
		name := strings.TrimSuffix(file, ".md")
		if name == "README" {
			continue
		}
		if _, ok := recipes[name]; !ok {
			t.Errorf("no test runs %s", file)
		}
		if !strings.Contains(string(index), fmt.Sprintf("(%s)", file)) {
			t.Errorf("README.md does not name %s", file)
		}
	}
}
