package filewatch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
		t.Fatal(err)
	}
}

// watched is a Watch whose changes a test looks at.
type watched struct {
	*Watch
	t    *testing.T
	dir  string
	seen map[string]bool // all that was waited for until now: what is left of it may come later
}

func open(t *testing.T, dir string, ignored []string, paths ...string) *watched {
	t.Helper()
	w, err := Open(paths, ignored)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &watched{w, t, dir, map[string]bool{}}
}

// sees waits until all of these have changed, with names from the folder on, and nothing else may have.
func (w *watched) sees(want ...string) {
	w.t.Helper()
	for _, name := range want {
		w.seen[name] = true
	}
	for missing := want; len(missing) > 0; {
		changed, err := w.Wait()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, path := range changed {
			name, err := filepath.Rel(w.dir, path)
			if err != nil || !w.seen[name] {
				w.t.Errorf("%s has changed (%v)", name, err)
			}
			missing = slices.DeleteFunc(missing, func(m string) bool { return m == name })
		}
	}
}

// seesInTheEnd writes until a file is seen to have changed.
func (w *watched) seesInTheEnd(name string) {
	w.t.Helper()
	for {
		write(w.t, filepath.Join(w.dir, name))
		changed, err := w.Wait()
		if err != nil {
			w.t.Fatal(err)
		}
		if slices.Contains(changed, filepath.Join(w.dir, name)) {
			return
		}
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/src/main.go")
	w := open(t, dir, []string{"*.log", "src/out", "tmp"}, dir)
	write(t, dir+"/src/main.go")
	write(t, dir+"/src/other.go")
	w.sees("src/main.go", "src/other.go")
	if err := os.Remove(dir + "/src/other.go"); err != nil {
		t.Fatal(err)
	}
	w.sees("src/other.go")
	w.seesInTheEnd("new/below/file")
	if err := os.Rename(dir+"/new", dir+"/newer"); err != nil {
		t.Fatal(err)
	}
	w.seesInTheEnd("newer/below/file")
	w.seesInTheEnd("newer/below/file")
}

// What editors leave, and what is to be ignored, changes nothing; what comes after shows it.
func TestWhatIsIgnored(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{".git", "node_modules/x", "tmp", "src/out"} {
		write(t, dir+"/"+folder+"/file")
	}
	write(t, dir+"/main.go")
	w := open(t, dir, []string{"*.log", "src/out", "tmp"}, dir)
	for _, name := range []string{
		"main.go~", ".main.go.swp", ".main.go.swx", "4913", ".#main.go", "#main.go#", "main.go___jb_tmp___", ".git/index.lock", ".git/refs/heads/x",
		"node_modules/x/file", "a.log", "src/out/app", "tmp/deep/er", "__pycache__/m.cpython-313.pyc",
	} {
		write(t, dir+"/"+name)
	}
	if err := os.Chmod(dir+"/main.go", 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/.env")
	w.sees(".env")
}

// Editors write another file and move it to the name, or move the old one away before.
func TestFileThatIsReplaced(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/config.yml"
	write(t, file)
	w := open(t, dir, nil, file)
	for range 3 {
		write(t, dir+"/unrelated")
		write(t, file+".new")
		if err := os.Rename(file, file+"~"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		w.sees("config.yml")
	}
}

// A deploy moves a link.
func TestLinkThatIsMoved(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/releases/1/app")
	write(t, dir+"/releases/2/app")
	if err := os.Symlink("releases/1", dir+"/current"); err != nil {
		t.Fatal(err)
	}
	w := open(t, dir, nil, dir+"/current")
	if err := os.Symlink("releases/2", dir+"/next"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/next", dir+"/current"); err != nil {
		t.Fatal(err)
	}
	w.sees("current")
	write(t, dir+"/releases/2/app")
	w.sees("releases/2/app")
}

// git checkout removes folders and makes them again.
func TestFolderThatIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/src/a")
	w := open(t, dir, nil, dir+"/src")
	if err := os.RemoveAll(dir + "/src"); err != nil {
		t.Fatal(err)
	}
	w.seesInTheEnd("src/b")
	w.seesInTheEnd("src/b")
}

// What never comes to rest is reported all the same.
func TestFileThatIsAlwaysWritten(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, nil, dir)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				os.WriteFile(dir+"/busy", nil, 0o644) // an error ends the test by its time
			}
		}
	}()
	w.sees("busy")
	close(end)
	<-ended
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, nil, dir)
	go w.Close()
	if _, err := w.Wait(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if _, err := Open([]string{"/no/such/file"}, nil); err == nil {
		t.Error("a path that is not there is watched")
	}
	for pattern, good := range map[string]bool{"*.log": true, "a/b": true, "": false, "[": false} {
		if (CheckPattern(pattern) == nil) != good {
			t.Errorf("%q: %v", pattern, CheckPattern(pattern))
		}
	}
}
