package harness

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func Write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// WriteFile lets no process be born meanwhile. It would have the descriptor until its exec, and nobody can execute a file
// that somebody may write to (execve(2), ETXTBSY).
func WriteFile(path, text string, mode os.FileMode) error {
	if mode&0o111 != 0 {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	return os.WriteFile(path, []byte(text), mode)
}

func Read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func Touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// RemoveAtOnce also removes a directory in which somebody makes something anew meanwhile.
func RemoveAtOnce(path string) error {
	gone := path + ".gone"
	if err := os.Rename(path, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// WorldFolder is one where any user can make files.
func WorldFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace-unix-") // the test's name would make a path too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}
