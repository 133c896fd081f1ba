package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"golang.org/x/sys/unix"
)

func privateRuntimeDir(t *testing.T) RuntimeDir {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	d := OpenRuntimeDir(nil)
	if filepath.Dir(d.Path) != os.Getenv("RUNTIME_DIRECTORY") {
		t.Fatalf("it is %s", d.Path)
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
			if err := c.harm(d.Path); err != nil {
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
			if why != nil && !strings.Contains(why.Error(), d.Path) {
				t.Errorf("the path is not named: %v", why)
			}
			if err := d.Close(); err != nil {
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
	if err := os.Chown(d.Path, 1, 1); err != nil {
		t.Fatal(err)
	}
	s, why, err := d.openNotify(&childproc.Identity{UID: 2, GID: 2})
	if err != nil || why == nil || s.Path()[0] != '@' {
		t.Errorf("%v, %v", why, err)
	}
	s.Close()
	if err := d.Close(); err != nil || unix.Access(d.Path, unix.F_OK) != nil {
		t.Errorf("it was removed: %v", err)
	}
}

// Whoever lives has its directory locked; what is not provably a dead grace's is left alone.
func TestRuntimeDirectoriesOfKilledGracesAreRemoved(t *testing.T) {
	alive := privateRuntimeDir(t)
	parent := filepath.Dir(alive.Path)
	dead := func() string {
		d, err := makeRuntimeDir(parent, 0o711)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(syscall.Close(boundIn(t, d.Path, "notify-A")), d.unlock()); err != nil {
			t.Fatal(err)
		}
		return d.Path
	}
	plain, foreign, older := dead(), dead(), filepath.Join(parent, "grace-1234")
	link, target := filepath.Join(parent, runtimePrefix+"link"), filepath.Join(parent, "target")
	others, changeable, read := dead(), dead(), dead()
	defer syscall.Close(boundIn(t, read, "notify-B"))
	for _, err := range []error{
		os.WriteFile(filepath.Join(foreign, "notes"), nil, 0o600), os.Mkdir(older, 0o700),
		os.Mkdir(target, 0o700), os.Symlink(target, link), os.Chmod(changeable, 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stay := []string{alive.Path, foreign, older, link, target, changeable, read}
	if os.Geteuid() == 0 {
		if err := os.Chown(others, 1, 1); err != nil {
			t.Fatal(err)
		}
		stay = append(stay, others)
	}
	sweepRuntimeDirs(parent)
	next := OpenRuntimeDir(nil)
	defer next.Close()
	if unix.Access(plain, unix.F_OK) == nil {
		t.Error("the directory of a grace that was killed is left")
	}
	for _, path := range append(stay, next.Path) {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is removed", path)
		}
	}
	if err := alive.Close(); err != nil || unix.Access(alive.Path, unix.F_OK) == nil {
		t.Errorf("not closed: %v", err)
	}
}

// A directory that was made again is as locked as the one before.
func TestRuntimeDirectoryMadeAgainIsLocked(t *testing.T) {
	d := privateRuntimeDir(t)
	defer d.Close()
	if err := os.RemoveAll(d.Path); err != nil {
		t.Fatal(err)
	}
	if err := d.restore(nil); err != nil {
		t.Fatal(err)
	}
	sweepRuntimeDirs(filepath.Dir(d.Path))
	if err := d.own(); err != nil {
		t.Errorf("the directory of a living grace is removed: %v", err)
	}
}

// boundIn is a socket as grace makes one for an app.
func boundIn(t *testing.T, dir, name string) (fd int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(dir, name)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func sweepRuntimeDirs(parent string) {
	for _, d := range runtimeDirsIn(parent) {
		if d.Take() {
			_ = d.Remove() // what cannot be removed stays
		}
	}
}
