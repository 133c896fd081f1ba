package childproc

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	roles["locker"] = func() {
		var files []*os.File // which have to stay open
		for _, how := range []string{"flock", "posix", "ofd", "shared", "none", "removed"} {
			f, err := os.Create(filepath.Join(os.Getenv("DIR"), how))
			if err == nil {
				err = lockBy(int(f.Fd()), how)
			}
			if files = append(files, f); err != nil {
				fmt.Println(how, err)
			}
		}
		os.Remove(filepath.Join(os.Getenv("DIR"), "removed"))
		fmt.Println("locked")
		io.Copy(io.Discard, os.Stdin)
		fmt.Println(len(files))
	}
}

func lockBy(fd int, how string) error {
	all := &unix.Flock_t{Type: unix.F_WRLCK}
	switch how {
	case "posix":
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, all)
	case "ofd":
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, all)
	case "shared":
		return unix.Flock(fd, unix.LOCK_SH)
	case "none":
		return nil
	}
	return unix.Flock(fd, unix.LOCK_EX)
}

func TestLockedFiles(t *testing.T) {
	dir := t.TempDir()
	p := startProgram(t, roleCommand("locker", "DIR="+dir))
	var said string
	if p.scan(t, &said); said != "locked" {
		t.Fatal(said)
	}
	files := Locked([]int{p.pid(), 1 << 30})
	var names []string
	for _, path := range slices.Sorted(maps.Values(files)) {
		names = append(names, filepath.Base(path))
	}
	if want := []string{"flock", "ofd", "posix"}; !slices.Equal(names, want) {
		t.Errorf("%v are locked and not %v", names, want)
	}
	f, err := os.Open(filepath.Join(dir, "flock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if open := Opened([]int{os.Getpid()}, files); !slices.Equal(open, []string{f.Name()}) {
		t.Errorf("%v are open", open)
	}
}
