package capture_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gracerun/grace/childproc/capture"
	"golang.org/x/sys/unix"
)

func TestUnlinkTellsItsPath(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	for _, name := range []string{"absolute", "relative", "at"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	s := spec("unlink", dir)
	s.CaptureUnlink = true
	a := start(t, s)
	for _, test := range []struct {
		path  string
		errno unix.Errno
		kept  bool
	}{
		{path: dir + "/absolute"},
		{path: dir + "/relative", kept: true},
		{path: dir + "/at"},
		{path: ""},
		{errno: unix.EFAULT},
	} {
		c := a.next(t, capture.Unlink)
		if path, err := c.Path(); path != test.path || (err != nil) != (test.errno != 0) || err != nil && !errors.Is(err, test.errno) {
			t.Errorf("path %q, %v, want %q", path, err, test.path)
		}
		if test.kept {
			must(t, c.Return(0))
			continue
		}
		must(t, c.Continue())
	}
	a.step(t, "open")
	for range 4 {
		if _, _, errno := a.step(t, "unlink"); errno != 0 {
			t.Error(errno)
		}
	}
	if _, _, errno := a.step(t, "unlink"); errno != unix.EFAULT {
		t.Error(errno)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "relative" {
		t.Error(left, err)
	}
}

func TestBindTellsItsPath(t *testing.T) {
	for name, test := range map[string]struct{ address, path string }{
		"a path":        {"/run/no-such-folder/x", "/run/no-such-folder/x"},
		"abstract":      {"@abstract", ""},
		"no unix":       {"127.0.0.1:0", ""},
		"relative path": {"x", "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec("socket", test.address)
			s.Dir, s.Umask = "/", 0o27
			a := start(t, s)
			c := a.next(t, capture.Bind)
			path, err := c.Path()
			if filepath.Clean(path) != filepath.Clean(test.path) || err != nil {
				t.Errorf("%q, %v", path, err)
			}
			if mask, err := c.Umask(); mask != 0o27 || err != nil {
				t.Errorf("umask %o, %v", mask, err)
			}
			must(t, c.Return(unix.EACCES))
		})
	}
}
