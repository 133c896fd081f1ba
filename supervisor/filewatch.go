package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gracerun/grace/supervisor/filewatch"
	"github.com/gracerun/grace/supervisor/machine"
)

// FileWatch says which files an upgrade follows on, for development. Relative paths start at the app's directory.
type FileWatch struct{ Paths, Ignored []string }

func (o Options) validateFileWatch() error {
	var errs []error
	for _, path := range o.FileWatch.within(o.Dir) {
		if _, err := os.Lstat(path); err != nil {
			errs = append(errs, fmt.Errorf("--watch: %w", err))
		}
	}
	for _, pattern := range o.FileWatch.Ignored {
		if err := filewatch.CheckPattern(pattern); err != nil {
			errs = append(errs, fmt.Errorf("--watch-ignore: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (f FileWatch) within(dir string) (paths []string) {
	for _, path := range f.Paths {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		paths = append(paths, filepath.Clean(path))
	}
	return paths
}

// openFileWatch is nil where nothing is to be watched, or it fails: that is no reason to leave the app.
func (s *service) openFileWatch() *filewatch.Watch {
	o := s.options
	if len(o.FileWatch.Paths) == 0 {
		return nil
	}
	watch, err := filewatch.Open(o.FileWatch.within(o.Dir), o.FileWatch.Ignored)
	if err != nil {
		o.Log.Warn().Str("why", err.Error()).Msg("cannot watch for changes")
		return nil
	}
	go reportChanges(watch, o.Dir, s.loop.post)
	return watch
}

// reportChanges ends when the watch is closed.
func reportChanges(watch *filewatch.Watch, dir string, post func(machine.Event)) {
	for {
		changed, err := watch.Wait()
		switch {
		case errors.Is(err, fs.ErrClosed):
			return
		case err != nil:
			post(machine.Noticed{Text: "cannot watch for all changes", Why: err.Error()})
		default:
			post(machine.FilesChanged{Which: listed(changed, dir)})
		}
	}
}

// mostListed is for a line that a person reads.
const mostListed = 3

func listed(paths []string, dir string) string {
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = strings.TrimPrefix(path, dir+"/")
	}
	if len(names) > mostListed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostListed], ", "), len(names)-mostListed)
	}
	return strings.Join(names, ", ")
}
