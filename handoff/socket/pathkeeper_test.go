package socket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

func TestKeptPathsStay(t *testing.T) {
	at := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	k := KeepPath(at, false)
	if k.Why != nil {
		k.checkRestored(t)
	} else if err := unix.Unlink(at); err != unix.EBUSY {
		t.Errorf("the path was removed: %v", err)
	}
	if k.Why == nil {
		k = KeepPath(at, true)
	}
	if err := k.Close(); err != nil || IsKept(at) {
		t.Errorf("the path is still kept: %v", err)
	}
	conn, err := net.Dial("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := unix.Unlink(at); err != nil {
		t.Error(err)
	}
}

func TestForeignMountsAreNotKept(t *testing.T) {
	at, other := filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), "s")
	for _, file := range []string{at, other} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	requirement.Check(t, "mount", unix.Mount(other, at, "", unix.MS_BIND, ""))
	defer unix.Unmount(at, unix.MNT_DETACH)
	k := &PathKeeper{path: at}
	if err := k.Close(); err != nil || IsKept(at) {
		t.Errorf("%v", err)
	}
	if err := unix.Unlink(at); err != unix.EBUSY {
		t.Errorf("the mount has gone: %v", err)
	}
}

// What a killed grace process has kept may be nobody's by now.
func TestKeptPathsAreCleared(t *testing.T) {
	at := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	requirement.Check(t, "mount", KeepPath(at, false).Why)
	a := Address{Network: "unix", Addr: at}
	if ClearPath(a) == nil || !IsKept(at) {
		t.Error("the path of a server was cleared")
	}
	ln.Close()
	if err := ClearPath(a); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is there: %v", err)
	}
}

// An ordinary user cannot mount.
func TestRemovedPathsAreMadeAgain(t *testing.T) {
	at := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	k := &PathKeeper{path: at, Why: errors.New("it is not permitted")}
	if err := k.restore(); err != nil {
		t.Fatal(err)
	}
	k.checkRestored(t)
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Dir(at) + "/.*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func (k *PathKeeper) checkRestored(t *testing.T) {
	t.Helper()
	if err := unix.Unlink(k.path); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); unix.Access(k.path, 0) != nil; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the path was not made again")
		}
	}
}
