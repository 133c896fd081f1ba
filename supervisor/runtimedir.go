package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

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

// openNotify makes a socket for an app in the directory, or in the abstract namespace if it cannot be made there, and
// then says why not: a directory that is full or gone is no reason not to start the app.
func (d runtimeDir) openNotify(identity *childproc.Identity) (s *childproc.NotifySocket, why, err error) {
	uid, gid := -1, -1
	if identity != nil {
		uid, gid = identity.UID, identity.GID
	}
	if why = d.restore(identity); why == nil {
		if s, why = childproc.OpenNotify(d.path, uid, gid); why == nil {
			return s, nil, nil
		}
	}
	s, err = childproc.OpenNotify("", uid, gid)
	return s, fmt.Errorf("cannot use the runtime directory %s: %w", d.path, why), err
}

// restore makes the directory again if it has gone, as at a logout, or with a cleaner of /tmp. What is at its path then may
// be another user's.
func (d runtimeDir) restore(identity *childproc.Identity) error {
	if d.path == "" || d.own() == nil {
		return nil
	}
	mode := fs.FileMode(0o700)
	if identity != nil {
		mode = 0o711
	}
	if err := os.Mkdir(d.path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.own(); err != nil {
		return err
	}
	return os.Chmod(d.path, mode) // less the umask
}

// own fails unless the directory is grace's own, and nobody else can write to it.
func (d runtimeDir) own() error {
	info, err := os.Lstat(d.path)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return errors.New("something else is there, which others may have made")
	}
	return nil
}

func (d runtimeDir) close() error {
	if d.path == "" || d.own() != nil {
		return nil
	}
	if err := os.RemoveAll(d.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove the runtime directory: %w", err)
	}
	return nil
}
