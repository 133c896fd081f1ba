package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gracerun/grace/childproc"
)

// runtimeDir is where one grace keeps its sockets; the empty one stands for the
// abstract namespace, where no directory can be written.
type runtimeDir struct{ path string }

// RuntimeDir makes the directory that a grace would keep its sockets in, and gives
// what removes it. The path is empty where none can be made.
func RuntimeDir(identity *childproc.Identity) (path string, remove func() error) {
	d := openRuntimeDir(identity)
	return d.path, d.close
}

// openRuntimeDir makes a directory that only grace and, for passing through, its
// apps can enter.
func openRuntimeDir(identity *childproc.Identity) runtimeDir {
	for _, parent := range runtimeParents(identity != nil) {
		path, err := os.MkdirTemp(parent, "grace-")
		if err != nil {
			continue
		}
		if identity == nil || os.Chmod(path, 0o711) == nil {
			return runtimeDir{path}
		}
		os.Remove(path)
	}
	return runtimeDir{}
}

// runtimeParents are the places to try. An app of another user cannot pass
// through a directory that is private to grace's own.
func runtimeParents(otherUser bool) []string {
	parents := []string{"/run", os.TempDir()}
	if otherUser {
		return parents
	}
	var private []string
	for _, variable := range []string{"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} {
		if path := os.Getenv(variable); filepath.IsAbs(path) {
			private = append(private, path)
		}
	}
	return append(private, parents...)
}

func (d runtimeDir) close() error {
	if d.path == "" {
		return nil
	}
	if err := os.RemoveAll(d.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove the runtime directory: %w", err)
	}
	return nil
}
