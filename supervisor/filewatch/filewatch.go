package filewatch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing may change before changes are reported: editors, git and compilers write several files.
	quiet = 200 * time.Millisecond
	// patience is for files that never come to rest.
	patience = 2 * time.Second
)

// Watch sees changes of files, and of all files below folders, new ones too. Wait is for one goroutine, Close for any.
type Watch struct {
	watcher *fsnotify.Watcher
	roots   []*root
	ignored []string
}

// root is a path as it was given, and the folder that it leads to, or "".
type root struct{ path, dir string }

// Open watches absolute paths. What matches one of the patterns of ignored (path/filepath.Match), by its name or its path below a folder,
// is left out, and what editors and version control write.
func Open(paths, ignored []string) (*Watch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch files: %w", err)
	}
	w := &Watch{watcher: watcher, ignored: ignored}
	for _, path := range paths {
		r := &root{path: path}
		w.roots = append(w.roots, r)
		if err = w.add(r); err != nil {
			return nil, errors.Join(err, watcher.Close())
		}
	}
	return w, nil
}

// add watches the folder of a path too: editors replace a file, and deploys a link, by another one of that name.
func (w *Watch) add(r *root) error {
	if err := w.watch(filepath.Dir(r.path)); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(r.path)
	if err != nil {
		return fmt.Errorf("cannot watch %s: %w", r.path, err)
	}
	info, err := os.Stat(real)
	if err != nil || !info.IsDir() {
		return err
	}
	r.dir = real
	return w.addBelow(r, real)
}

func (w *Watch) addBelow(r *root, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was there a moment ago
			return nil
		case err != nil:
			return err
		case !entry.IsDir():
			return nil
		case path != r.dir && w.ignores(r.below(path)):
			return filepath.SkipDir
		}
		return w.watch(path)
	})
}

func (w *Watch) watch(dir string) error {
	err := w.watcher.Add(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOSPC): // inotify_add_watch(2)
		return fmt.Errorf("cannot watch %s: too many folders are watched (raise fs.inotify.max_user_watches, or leave folders out by --watch-ignore)", dir)
	case err != nil:
		return fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	return nil
}

func (r *root) below(path string) string {
	rest, _ := strings.CutPrefix(path, r.dir+"/")
	return rest
}

// Close ends Wait.
func (w *Watch) Close() error { return w.watcher.Close() }

// Wait returns what has changed, once it has come to rest; fs.ErrClosed after Close. Any other error is about what cannot be
// watched any more, and Wait may be called again.
func (w *Watch) Wait() (changed []string, err error) {
	var rest, limit <-chan time.Time
	for {
		select {
		case event, open := <-w.watcher.Events:
			if !open {
				return nil, fs.ErrClosed
			}
			matters, err := w.heed(event)
			if err != nil {
				return nil, err
			}
			if !matters {
				continue
			}
			if limit == nil {
				limit = time.After(patience)
			}
			rest = time.After(quiet)
			if !slices.Contains(changed, event.Name) {
				changed = append(changed, event.Name)
			}
		case err, open := <-w.watcher.Errors:
			if !open {
				return nil, fs.ErrClosed
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return nil, fmt.Errorf("cannot watch files: %w", err)
			}
			changed, rest = append(changed, "many files"), time.After(quiet)
		case <-rest:
			return changed, nil
		case <-limit:
			return changed, nil
		}
	}
}

// heed reports whether an event matters, and watches a new folder. A change of the mode or the times does not: indexers and backups
// cause them.
func (w *Watch) heed(event fsnotify.Event) (matters bool, err error) {
	if event.Op == fsnotify.Chmod {
		return false, nil
	}
	if event.Has(fsnotify.Rename) {
		w.forget(event.Name)
	}
	for _, r := range w.roots {
		switch {
		case event.Name == r.path:
			matters = true
			if event.Has(fsnotify.Create) {
				err = errors.Join(err, w.add(r))
			}
		case r.dir != "" && strings.HasPrefix(event.Name, r.dir+"/") && !w.ignores(r.below(event.Name)):
			matters = true
			if info, failed := os.Lstat(event.Name); event.Has(fsnotify.Create) && failed == nil && info.IsDir() {
				err = errors.Join(err, w.addBelow(r, event.Name))
			}
		}
	}
	return matters, err
}

// forget ends the watches of what was moved: the kernel watches it on, at a path that it does not have any more.
func (w *Watch) forget(path string) {
	for _, watched := range w.watcher.WatchList() {
		if watched == path || strings.HasPrefix(watched, path+"/") {
			_ = w.watcher.Remove(watched) // its error is that it has ended already
		}
	}
}

// passing are the names of what editors, version control and interpreters write beside what is edited.
var passing = []string{
	"*~", "4913", ".#*", "#*#", ".*.sw?", ".*.sw??", "*.swp", "*.swx", "*.kate-swp", "*___jb_tmp___", "*___jb_old___", ".goutputstream-*", ".DS_Store", "*.py[co]",
	".git", ".hg", ".svn", ".bzr", ".idea", ".vscode", "__pycache__", "node_modules",
}

// ignores looks at the names of all folders of a path, too.
func (w *Watch) ignores(below string) bool {
	for name := below; name != "." && name != ""; name = filepath.Dir(name) {
		matches := func(pattern string) bool {
			base, _ := filepath.Match(pattern, filepath.Base(name))
			whole, _ := filepath.Match(pattern, name) // its only error is a bad pattern, which CheckPattern finds
			return base || whole
		}
		if slices.ContainsFunc(passing, matches) || slices.ContainsFunc(w.ignored, matches) {
			return true
		}
	}
	return false
}

// CheckPattern says what is wrong with a pattern.
func CheckPattern(pattern string) error {
	if _, err := filepath.Match(pattern, ""); err != nil || pattern == "" {
		return fmt.Errorf("%q is not a pattern such as *.log or build", pattern)
	}
	return nil
}
