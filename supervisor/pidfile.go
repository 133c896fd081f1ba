package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidFile is the file that tells others grace's pid.
type pidFile struct{ path string }

// writePIDFile puts a whole file in place at once, so that nobody reads half a
// number.
func writePIDFile(path string) (pidFile, error) {
	if path == "" {
		return pidFile{}, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return pidFile{}, fmt.Errorf("cannot write --pid-file: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = fmt.Fprintln(temp, os.Getpid())
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return pidFile{}, fmt.Errorf("cannot write --pid-file: %w", err)
	}
	return pidFile{path}, nil
}

// remove leaves a file alone that another process has written since.
func (f pidFile) remove() error {
	if f.path == "" {
		return nil
	}
	text, err := os.ReadFile(f.path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove --pid-file: %w", err)
	}
	if strings.TrimSpace(string(text)) != strconv.Itoa(os.Getpid()) {
		return nil
	}
	return os.Remove(f.path)
}
