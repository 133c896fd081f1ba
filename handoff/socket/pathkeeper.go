package socket

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// PathKeeper keeps the file at a unix path there while a process may remove it that had the path before, as nearly all servers do when
// they end. The kernel refuses to remove a file on which something is mounted, with EBUSY, so the file is mounted on itself:
// clients do not notice. That needs CAP_SYS_ADMIN. Without it the path is made again as soon as it was removed, by a second name of the file,
// and Why says why clients may be refused in between.
//
// The path cannot be renamed or removed by anybody until Close.
type PathKeeper struct {
	Why   error
	path  string
	spare string
	watch *os.File
	ended chan struct{}
}

// KeepPath begins. With again set, the process before this one has kept the path already, and has left it so.
func KeepPath(at string, again bool) *PathKeeper {
	k := &PathKeeper{path: at}
	if again && IsKept(at) {
		return k
	}
	err := unix.Mount(at, at, "", unix.MS_BIND, "")
	if err == nil {
		return k
	}
	k.Why = fmt.Errorf("cannot mount %s on itself: %w; clients that connect in the moment in which it is removed are refused", at, err)
	if err := k.restore(); err != nil {
		k.Why = errors.Join(k.Why, err)
	}
	return k
}

// IsKept reports whether the path is mounted on itself. What else is mounted there, by a container engine say, is not grace's.
func IsKept(at string) bool {
	var mount unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, at, unix.AT_SYMLINK_NOFOLLOW, 0, &mount)
	if err != nil || mount.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false
	}
	var above unix.Stat_t
	if err := unix.Lstat(at, &above); err != nil {
		return false
	}
	below, err := underneath(at)
	return err == nil && below == FileOf(&above)
}

// underneath looks at the file on which another one is mounted: a clone of the folder's mount has nothing mounted in it (open_tree(2)
// without AT_RECURSIVE).
func underneath(at string) (File, error) {
	folder, err := unix.OpenTree(unix.AT_FDCWD, path.Dir(at), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return File{}, err
	}
	defer unix.Close(folder)
	var stat unix.Stat_t
	err = unix.Fstatat(folder, path.Base(at), &stat, unix.AT_SYMLINK_NOFOLLOW)
	return FileOf(&stat), err
}

// restore makes the path again whenever it is removed. IN_ATTRIB is sent when the number of a file's names changes.
func (k *PathKeeper) restore() error {
	spare := path.Join(path.Dir(k.path), "."+path.Base(k.path)+".kept")
	if err := unix.Unlink(spare); err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot restore %s where it is removed: %w", k.path, err)
	}
	if err := unix.Link(k.path, spare); err != nil {
		return fmt.Errorf("cannot restore %s where it is removed: %w", k.path, err)
	}
	k.spare = spare
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil // then it is made again at the end
	}
	k.watch, k.ended = os.NewFile(uintptr(fd), "inotify"), make(chan struct{})
	if _, err := unix.InotifyAddWatch(fd, spare, unix.IN_ATTRIB|unix.IN_DONT_FOLLOW); err != nil {
		err = k.watch.Close()
		k.watch = nil
		return err
	}
	go k.linkAgain()
	return nil
}

func (k *PathKeeper) linkAgain() {
	defer close(k.ended)
	var events [unix.SizeofInotifyEvent * 16]byte
	for {
		if _, err := k.watch.Read(events[:]); err != nil {
			return
		}
		_ = unix.Link(k.spare, k.path) // EEXIST: it is there
	}
}

// Close leaves the path to whoever may remove it.
func (k *PathKeeper) Close() error {
	if k.spare == "" {
		return unkeep(k.path)
	}
	var err error
	if k.watch != nil {
		err = k.watch.Close()
		<-k.ended
	}
	_ = unix.Link(k.spare, k.path)
	return errors.Join(err, unix.Unlink(k.spare))
}

// unkeep ends the mount on a path that is kept. It does not wait for a client that is about to connect: what that has found stays what it is.
func unkeep(at string) error {
	if !IsKept(at) {
		return nil
	}
	if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", at, err)
	}
	return nil
}
