package host

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/supervisor/machine"
)

// releases has two of them, and the link current to the first.
func releases(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(tree(t, "releases/1/app*", "releases/2/app*", "rel/file", "other/file", "file"))
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"current": "releases/1", "all": "releases", "elsewhere": "other", "like": "rel", "broken": "none", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func flip(t *testing.T, link, to string) {
	t.Helper()
	if err := errors.Join(os.Remove(link), os.Symlink(to, link)); err != nil {
		t.Fatal(err)
	}
}

func TestLinksTo(t *testing.T) {
	dir := releases(t)
	found := linksTo(dir + "/releases/1")
	maps.DeleteFunc(found, func(link, _ string) bool { return !strings.HasPrefix(link, dir) })
	want := map[string]string{dir + "/current": dir + "/releases/1", dir + "/all": dir + "/releases"}
	if !maps.Equal(found, want) {
		t.Errorf("found %v", found)
	}
}

// TestMovedLinkThatNobodyHasNamed: nothing is deployed by a guess, and nobody is told that it was.
func TestMovedLinkThatNobodyHasNamed(t *testing.T) {
	for name, c := range map[string]struct {
		move    func(t *testing.T, dir string)
		unnamed bool
		command string
		fails   bool
		stays   bool
	}{
		"moved":                    {func(t *testing.T, dir string) { flip(t, dir+"/current", "releases/2") }, true, "./app", true, false},
		"moved, and named":         {func(t *testing.T, dir string) { flip(t, dir+"/current", "releases/2") }, false, "./app", false, false},
		"not moved":                {func(*testing.T, string) {}, true, "./app", false, false},
		"another one":              {func(t *testing.T, dir string) { flip(t, dir+"/elsewhere", "releases/2") }, true, "./app", false, false},
		"gone":                     {func(t *testing.T, dir string) { os.Remove(dir + "/current") }, true, "./app", false, false},
		"leads nowhere":            {func(t *testing.T, dir string) { flip(t, dir+"/current", "none") }, true, "./app", false, false},
		"moved, and something new": {func(t *testing.T, dir string) { flip(t, dir+"/current", "releases/2") }, true, "../../current/app", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := releases(t)
			o := Options{Command: []string{c.command}, Dir: dir + "/releases/1", unnamed: c.unnamed}
			first, err := resolveOrder(o, machine.Prepare{Generation: 1}, 0)
			if err != nil {
				t.Fatal(err)
			}
			current := first.LaunchSpec
			c.move(t, dir)
			second, err := resolveOrder(o, machine.Prepare{Generation: 2, Current: &current}, 0)
			if c.fails {
				if err == nil || !strings.Contains(err.Error(), "--chdir "+dir+"/current to follow it") {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || (second.stays != "") != c.stays {
				t.Errorf("%v, %+v", err, second)
			}
		})
	}
}

func TestDirectoryIsNamedByWhoStartsGrace(t *testing.T) {
	dir := releases(t)
	t.Chdir(dir + "/releases/1")
	for _, c := range []struct {
		pwd, chdir, dir string
		unnamed         bool
	}{
		{dir + "/current", "", dir + "/current", false},
		{"", "", dir + "/releases/1", true},
		{dir + "/releases/2", "", dir + "/releases/1", true},
		{"", dir + "/current", dir + "/current", false},
		{"", "../2", dir + "/releases/2", true},
	} {
		t.Setenv("PWD", c.pwd)
		o, err := Options{Dir: c.chdir}.Settled()
		if err != nil || o.Dir != c.dir || o.unnamed != c.unnamed {
			t.Errorf("PWD %q, --chdir %q: %s, %v, %v", c.pwd, c.chdir, o.Dir, o.unnamed, err)
		}
	}
}
