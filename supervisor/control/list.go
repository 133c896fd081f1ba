package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const probeLimit = time.Second

// Found is the control socket of a grace process.
type Found struct {
	Name, Path string
	UID        int // of the socket's owner
}

// List finds the grace processes that this process may control, sorted by name: its own user's,
// and for root everybody's.
func List() []Found {
	var all []Found
	known := map[fileID]bool{}
	for _, dir := range searchDirs() {
		for _, f := range listDir(dir, known) {
			if f.answers() {
				all = append(all, f)
			}
		}
	}
	slices.SortFunc(all, func(a, b Found) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Path, b.Path))
	})
	return all
}

// searchDirs are all directories in which there may be a control socket, grace's own first.
func searchDirs() []string {
	dirs := append([]string{"/run/grace"}, socketDirs()...)
	for _, pattern := range []string{"/run/grace/*", "/run/grace/*/grace", "/run/user/*/grace", "/run/user/*/grace/*", "/tmp/" + usersPrefix + "[0-9]*"} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		dirs = append(dirs, found...)
	}
	return slices.DeleteFunc(dirs, unprintable)
}

// unprintable paths are made by users to say something else than where a socket is.
func unprintable(path string) bool {
	return strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) })
}

// fileID is what a path leads to: links in what users have made could show a socket of
// root's under another name.
type fileID struct{ device, inode uint64 }

func listDir(dir string, known map[fileID]bool) []Found {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // what cannot be read cannot be asked either
	}
	var all []Found
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || e.Type() != fs.ModeSocket || CheckName(name) != nil {
			continue
		}
		found := Found{Name: name, Path: filepath.Join(dir, e.Name())}
		if found.identify(known) {
			all = append(all, found)
		}
	}
	return all
}

// identify reports whether a socket is seen for the first time.
func (f *Found) identify(known map[fileID]bool) bool {
	info, err := os.Lstat(f.Path)
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	this := fileID{uint64(s.Dev), uint64(s.Ino)}
	if known[this] {
		return false
	}
	known[this], f.UID = true, int(s.Uid)
	return true
}

// answers reports whether anybody listens: a grace process that was killed has left its socket behind.
func (f *Found) answers() bool {
	err := f.probe()
	return err == nil || !nobodyListens(err) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errOtherUser)
}

func (f *Found) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	conn, err := dial(ctx, f.Path)
	if err != nil {
		return err
	}
	return conn.Close()
}

// NotFoundError is that of a name that no grace has, or several, or of none where there
// is more than one.
type NotFoundError struct {
	Name string
	Have []Found
}

func (e *NotFoundError) Error() string {
	switch {
	case len(e.Have) == 0 && e.Name == "":
		return "no grace process that you may control runs here"
	case len(e.Have) == 0:
		return fmt.Sprintf("no grace process is named %q, and none that you may control runs here", e.Name)
	case e.Name == "":
		return "several grace processes run here: give the name of one\n" + e.list()
	case slices.ContainsFunc(e.Have, e.named):
		return fmt.Sprintf("several grace processes are named %q: give the path of one\n", e.Name) + e.list()
	}
	return fmt.Sprintf("no grace process is named %q; these run here:\n", e.Name) + e.list()
}

func (e *NotFoundError) named(f Found) bool { return f.Name == e.Name }

func (e *NotFoundError) list() string {
	var lines []string
	for _, f := range e.Have {
		lines = append(lines, fmt.Sprintf("  %-20s %s", f.Name, f.Path))
	}
	return strings.Join(lines, "\n")
}

// Find finds the grace process with this name, or with its socket at this path. Without a
// name it is the only one in $RUNTIME_DIRECTORY, where commands of a service look, or
// else the only one at all.
func Find(name string) (Found, error) {
	if strings.Contains(name, "/") {
		return at(name)
	}
	return choose(name, List())
}

func choose(name string, all []Found) (Found, error) {
	matching := slices.DeleteFunc(slices.Clone(all), func(f Found) bool { return name != "" && f.Name != name })
	if len(matching) == 1 {
		return matching[0], nil
	}
	for _, preferred := range []func(Found) bool{ours, func(f Found) bool { return name != "" && ofTheSystem(f) }} {
		of := slices.DeleteFunc(slices.Clone(matching), func(f Found) bool { return !preferred(f) })
		if len(of) == 1 {
			return of[0], nil
		}
	}
	if len(matching) > 1 {
		all = matching
	}
	return Found{}, &NotFoundError{Name: name, Have: all}
}

// ours reports whether a grace process belongs to the service that this process belongs to.
func ours(f Found) bool {
	given, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	return filepath.IsAbs(given) && (filepath.Dir(f.Path) == filepath.Clean(given) || filepath.Dir(f.Path) == filepath.Join(given, "grace"))
}

// ofTheSystem reports whether the socket is where only root and services have theirs. A user who gives one of his own the same name must
// not keep root from asking it.
func ofTheSystem(f Found) bool { return strings.HasPrefix(f.Path, "/run/grace/") }

func at(path string) (Found, error) {
	found := Found{Name: strings.TrimSuffix(filepath.Base(path), suffix), Path: path}
	if err := found.probe(); err != nil {
		return found, fmt.Errorf("cannot reach grace at %s: %w", path, err)
	}
	found.identify(map[fileID]bool{})
	return found, nil
}
