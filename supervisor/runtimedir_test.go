package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/childproc"
	"golang.org/x/sys/unix"
)

func privateRuntimeDir(t *testing.T) runtimeDir {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	d := openRuntimeDir(nil)
	if filepath.Dir(d.path) != os.Getenv("RUNTIME_DIRECTORY") {
		t.Fatalf("it is %s", d.path)
	}
	return d
}

func TestRuntimeDirectoryThatIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		harm     func(path string) error
		abstract bool
	}{
		"nothing":             {func(string) error { return nil }, false},
		"removed":             {os.RemoveAll, false},
		"removed with parent": {func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, true},
		"replaced by a link": {func(path string) error {
			target := t.TempDir()
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink(target, path)
		}, true},
		"replaced by a file":     {func(path string) error { os.Remove(path); return os.WriteFile(path, nil, 0o600) }, true},
		"that others may change": {func(path string) error { return os.Chmod(path, 0o777) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := privateRuntimeDir(t)
			if err := c.harm(d.path); err != nil {
				t.Fatal(err)
			}
			s, why, err := d.openNotify(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if abstract := s.Path()[0] == '@'; abstract != c.abstract || abstract != (why != nil) {
				t.Errorf("%s, because %v", s.Path(), why)
			}
			if why != nil && !strings.Contains(why.Error(), d.path) {
				t.Errorf("the path is not named: %v", why)
			}
			if err := d.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Of another user's directory grace does nothing, root's neither.
func TestRuntimeDirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	d := privateRuntimeDir(t)
	if err := os.Chown(d.path, 1, 1); err != nil {
		t.Fatal(err)
	}
	s, why, err := d.openNotify(&childproc.Identity{UID: 2, GID: 2})
	if err != nil || why == nil || s.Path()[0] != '@' {
		t.Errorf("%v, %v", why, err)
	}
	s.Close()
	if err := d.close(); err != nil || unix.Access(d.path, unix.F_OK) != nil {
		t.Errorf("it was removed: %v", err)
	}
}
