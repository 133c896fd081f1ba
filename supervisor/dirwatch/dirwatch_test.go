package dirwatch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Watch {
	t.Helper()
	w, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// await begins to wait, and gives what Wait returns.
func await(t *testing.T, dir string) <-chan error {
	t.Helper()
	w := open(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	waited, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		waited <- w.Wait(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return waited
}

func makeFile(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestLossesAreTold(t *testing.T) {
	for name, lose := range map[string]func(top string) error{
		"of a file":                 func(top string) error { return os.Remove(top + "/above/dir/file") },
		"of one that was moved":     func(top string) error { return os.Rename(top+"/above/dir/file", top+"/file") },
		"of one that is another's":  func(top string) error { return os.Rename(top+"/other", top+"/above/dir/file") },
		"of the directory":          func(top string) error { return os.RemoveAll(top + "/above/dir") },
		"of one that was moved off": func(top string) error { return os.Rename(top+"/above/dir", top+"/above/gone") },
		"of one above":              func(top string) error { return os.Rename(top+"/above", top+"/gone") },
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			makeFile(t, top+"/above/dir/file")
			makeFile(t, top+"/other")
			waited := await(t, top+"/above/dir")
			makeFile(t, top+"/above/dir/new")
			select {
			case err := <-waited:
				t.Fatalf("a new file is told: %v", err)
			default:
			}
			if err := lose(top); err != nil {
				t.Fatal(err)
			}
			if err := <-waited; err != nil {
				t.Error(err)
			}
		})
	}
}

func mount(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to mount")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestMountsAreTold(t *testing.T) {
	dir := t.TempDir()
	waited := await(t, dir)
	mount(t, dir)
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// Whoever asks the set, as Go's poller does, has had a mount told.
func TestMountBeforeTheWaitIsTold(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	mount(t, dir)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.set.Fd()), Events: unix.POLLIN}}, 0); n > 1 || err != nil {
		t.Fatal(n, err)
	}
	if err := unix.SetNonblock(int(w.set.Fd()), true); err != nil { // which Fd has undone
		t.Fatal(err)
	}
	if err := w.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLossBetweenTwoWaitsIsTold(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	for range 3 {
		makeFile(t, dir+"/file")
		if err := os.Remove(dir + "/file"); err != nil {
			t.Fatal(err)
		}
		if err := w.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("it waits with %v, told of nothing", err)
		}
	}
}

func TestWhatIsNotThereCannotBeWatched(t *testing.T) {
	if _, err := Open(t.TempDir() + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
