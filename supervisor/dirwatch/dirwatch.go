// Package dirwatch has the kernel tell when something may have gone from a directory, or from the path that leads there.
package dirwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Watch waits in Go's poller for what inotify(7) and the list of mounts tell (proc_pid_mountinfo(5)). It is for one goroutine.
type Watch struct {
	set           *os.File // an epoll set with the others
	files, mounts int
	path          string
	dir           os.FileInfo // when it was opened
}

// Open begins to watch the absolute path of a directory. What has gone before is not told. The caller closes the Watch.
func Open(dir string) (w *Watch, err error) {
	w = &Watch{files: -1, mounts: -1, path: dir}
	if err = w.open(dir); err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", dir, errors.Join(err, w.Close()))
	}
	return w, nil
}

func (w *Watch) open(dir string) (err error) {
	if w.files, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	if err = watchPath(w.files, dir); err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	if w.dir, err = os.Stat(dir); err != nil {
		return err
	}
	if w.mounts, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: "/proc/self/mountinfo", Err: err}
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err = unix.SetNonblock(epoll, true); err == nil { // for os.NewFile, which asks for it
		err = errors.Join(add(epoll, w.files, unix.EPOLLIN), add(epoll, w.mounts, unix.EPOLLPRI))
	}
	w.set = os.NewFile(uintptr(epoll), "epoll")
	return err
}

const (
	self  = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	entry = unix.IN_DELETE | unix.IN_MOVE
)

// watchPath watches the directories above for being moved.
func watchPath(files int, dir string) error {
	if _, err := unix.InotifyAddWatch(files, dir, self|entry); err != nil {
		return err
	}
	for dir != "/" {
		dir = filepath.Dir(dir)
		if _, err := unix.InotifyAddWatch(files, dir, self); err != nil && err != unix.EACCES { // it can be passed through, and not read
			return err
		}
	}
	return nil
}

func add(epoll, fd int, events uint32) error {
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events | unix.EPOLLET, Fd: int32(fd)})
}

// Wait returns nil when something may have gone since the Open or the last Wait, or the error of ctx.
func (w *Watch) Wait(ctx context.Context) error {
	if err := w.set.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("cannot wait for changes: %w", err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = w.set.SetReadDeadline(time.Unix(1, 0)) // it could be set before
	})
	err := w.wait()
	if !stop() {
		<-interrupted
		return ctx.Err()
	}
	return err
}

// wait takes it for a change that it was woken: asking whether there are mounts to tell of, as Go's poller does by way of the set, has them
// told (mounts_poll in fs/proc_namespace.c). Of one that was told so before the wait only the path tells.
func (w *Watch) wait() error {
	conn, err := w.set.SyscallConn()
	if err != nil {
		return err
	}
	woken := false
	return conn.Read(func(epoll uintptr) bool {
		var events [2]unix.EpollEvent
		n, err := unix.EpollWait(int(epoll), events[:], 0)
		told := w.drain() || n > 0 || err != nil && err != unix.EINTR
		if told || woken || !w.InPlace() {
			return true
		}
		woken = true
		return false
	})
}

// drain has inotify forget what it has told, and reports whether there was anything: what it reads does not wake the poller any more.
func (w *Watch) drain() (any bool) {
	for events := make([]byte, 4096); ; any = true {
		n, err := unix.Read(w.files, events)
		for err == unix.EINTR {
			n, err = unix.Read(w.files, events)
		}
		if n <= 0 {
			return any
		}
	}
}

// InPlace reports whether the directory that is watched is still at its path.
func (w *Watch) InPlace() bool {
	now, err := os.Stat(w.path)
	return err == nil && os.SameFile(now, w.dir)
}

// Close is not for while somebody waits.
func (w *Watch) Close() error {
	var errs []error
	if w.set != nil {
		errs = append(errs, w.set.Close())
	}
	for _, fd := range []int{w.files, w.mounts} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
