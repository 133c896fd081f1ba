package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func recipeOf(t *testing.T, path string) machine.LaunchSpec {
	t.Helper()
	l, err := Resolve(Options{Command: []string{path}, Dir: filepath.Dir(path)})
	if err != nil {
		t.Fatal(err)
	}
	return l.LaunchSpec
}

func TestRecipeIsFollowedOnlyWithTheSameFile(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, path string)
		why    string
	}{
		"untouched": {func(*testing.T, string) {}, ""},
		"gone":      {func(t *testing.T, path string) { os.Remove(path) }, "no such file"},
		"replaced": {func(t *testing.T, path string) {
			writeFile(t, path+".new", "#!/bin/sh\n")
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}, "the file there is not the one that ran (inode "},
		"written over": {func(t *testing.T, path string) {
			writeFile(t, path, "#!/bin/false\n")
			later := time.Now().Add(time.Second)
			if err := os.Chtimes(path, later, later); err != nil {
				t.Fatal(err)
			}
		}, "the file there is not the one that ran (changed at 2"},
		"its directory is gone": {func(t *testing.T, path string) { os.RemoveAll(filepath.Dir(path)) }, "cannot go back to directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app")
			writeFile(t, path, "#!/bin/sh\n")
			r := recipeOf(t, path)
			c.change(t, path)
			err := possible(r, 0)
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRuntimeWithAnotherPayload: PyInstaller, Deno and others put each version of a program behind the same ELF file.
func TestRuntimeWithAnotherPayload(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "app")
	writeFile(t, path, string(runtime)+"version 1")
	r := recipeOf(t, path)
	writeFile(t, path+".new", string(runtime)+"version 2")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if possible(r, 0) == nil || r.RunsLike(recipeOf(t, path)) {
		t.Error("another version of the program is taken for the one that ran")
	}
}

// TestRollbackFollowsNoLinks: what a link leads to now is what is to be undone.
func TestRollbackFollowsNoLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "current")
	for _, release := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, release), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, release, "app"), "#!/bin/sh\n# "+release)
	}
	flip := func(to string) {
		os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	flip("1")
	o := Options{Command: []string{"./app", "x"}, Dir: link}
	first, err := Resolve(o)
	if err != nil {
		t.Fatal(err)
	}
	flip("2")
	r := first.LaunchSpec
	l, err := resolveOrder(o, machine.Prepare{Generation: 3, Command: r.Command, Again: &r}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "1", "app"); l.executable() != want || l.Dir != filepath.Dir(want) || l.variable("PWD") != l.Dir {
		t.Errorf("it runs %s in %s", l.executable(), l.Dir)
	}
}
