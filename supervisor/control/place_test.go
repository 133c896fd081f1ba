package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func openInPlace(t *testing.T) *Socket {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(t.TempDir(), "place"))
	return open(t, "place")
}

func awaited(t *testing.T, s *Socket) (gone <-chan error, cancel context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.AwaitGone(ctx) }()
	return ended, cancel
}

func TestAwaitGone(t *testing.T) {
	for name, remove := range map[string]func(s *Socket) error{
		"removed":         func(s *Socket) error { return os.Remove(s.Path) },
		"without a lock":  func(s *Socket) error { return os.Remove(s.lockPath()) },
		"moved":           func(s *Socket) error { return os.Rename(s.Path, s.Path+".old") },
		"replaced":        func(s *Socket) error { return os.Rename(s.lockPath(), s.Path) },
		"without a place": func(s *Socket) error { return os.RemoveAll(filepath.Dir(s.Path)) },
		"place moved":     func(s *Socket) error { return os.Rename(filepath.Dir(s.Path), filepath.Dir(s.Path)+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			s := openInPlace(t)
			gone, cancel := awaited(t, s)
			defer cancel()
			if err := os.WriteFile(s.Path+".other", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-gone:
				t.Fatalf("it is said to be gone: %v", err)
			default:
			}
			if err := remove(s); err != nil {
				t.Fatal(err)
			}
			if err := <-gone; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAwaitGoneBelowAMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to mount")
	}
	s := openInPlace(t)
	gone, cancel := awaited(t, s)
	defer cancel()
	if err := unix.Mount("tmpfs", filepath.Dir(s.Path), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Dir(s.Path), unix.MNT_DETACH)
	if err := <-gone; err != nil {
		t.Error(err)
	}
}

func TestAwaitGoneEnds(t *testing.T) {
	s := openInPlace(t)
	gone, cancel := awaited(t, s)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Dir(s.Path)); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitGone(t.Context()); err != nil {
		t.Errorf("of a place that is not there: %v", err)
	}
}
