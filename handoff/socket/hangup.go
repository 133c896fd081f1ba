package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// HangupWatch tells when an app has done away with a held listener. All generations share the open file description,
// so shutdown(2) by one of them ends the listener for every one; and one that removes its unix path as it ends leaves
// clients with nothing to connect to.
type HangupWatch struct {
	epoll, stop, paths int
	alarm              *Alarm // of epoll
	listeners          []*Listener
	watched            map[uint64]bool     // inodes of sockets
	byPath             map[int32]*Listener // by inotify's number
	waiting            sync.Mutex
}

// NewHangupWatch watches the listeners. The caller keeps them open until Close.
func NewHangupWatch(listeners []*Listener) (*HangupWatch, error) {
	w := &HangupWatch{epoll: -1, stop: -1, paths: -1, listeners: listeners}
	w.watched, w.byPath = make(map[uint64]bool), make(map[int32]*Listener)
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot watch listeners: %w", err), w.Close())
	}
	return w, nil
}

func (w *HangupWatch) open() (err error) {
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if w.alarm, err = NewAlarm(w.epoll); err != nil {
		return err
	}
	return errors.Join(w.add(w.stop, unix.EPOLLIN), w.openPaths(), w.addNew())
}

// openPaths goes without where a user has no inotify instance left (fs.inotify.max_user_instances is 128), as addPath
// does without a watch: paths are then as unprotected as without grace, which is no reason not to serve.
func (w *HangupWatch) openPaths() (err error) {
	if !slices.ContainsFunc(w.listeners, func(l *Listener) bool { return l.spare != "" }) {
		return nil
	}
	if w.paths, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return nil
	}
	return w.add(w.paths, unix.EPOLLIN)
}

// addNew adds the sockets that are not watched: all at first, later those that Revive has replaced.
func (w *HangupWatch) addNew() error {
	for _, l := range w.listeners {
		if w.watched[l.Inode()] {
			continue
		}
		w.watched[l.Inode()] = true
		w.addPath(l)
		if err := w.addSocket(l); err != nil {
			return err
		}
	}
	return nil
}

// addSocket asks for no EPOLLIN: connections wake the app's set and not this one. EPOLLHUP and EPOLLERR are always on,
// EPOLLRDHUP is what a unix listener gives for SHUT_RD, and EPOLLET tells of each shutdown once.
func (w *HangupWatch) addSocket(l *Listener) error {
	if !l.Stream() {
		return nil
	}
	return w.add(l.fd, unix.EPOLLRDHUP|unix.EPOLLET)
}

// addPath watches the file, not its folder, where others come and go. IN_ATTRIB is sent when the number of its names
// changes, and it has a spare one.
func (w *HangupWatch) addPath(l *Listener) {
	if l.spare == "" || w.paths < 0 {
		return
	}
	if number, err := unix.InotifyAddWatch(w.paths, l.spare, unix.IN_ATTRIB|unix.IN_DONT_FOLLOW); err == nil {
		w.byPath[int32(number)] = l
	}
}

func (w *HangupWatch) add(fd int, events uint32) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// Wait blocks until an app has shut a listener down or removed its path, and returns it; the caller is to Revive it
// before the next Wait. After Close it returns net.ErrClosed.
func (w *HangupWatch) Wait() (*Listener, error) {
	w.waiting.Lock()
	defer w.waiting.Unlock()
	if w.epoll < 0 {
		return nil, net.ErrClosed
	}
	if err := w.addNew(); err != nil {
		return nil, fmt.Errorf("cannot watch listeners: %w", err)
	}
	for {
		fd, err := w.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("cannot watch listeners: %w", err)
		case fd == w.stop:
			return nil, net.ErrClosed
		}
		if l := w.gone(fd); l != nil {
			return l, nil
		}
	}
}

// gone finds the listener that an event on the descriptor means, if it is more than a new mode of a path.
func (w *HangupWatch) gone(fd int) *Listener {
	if fd == w.paths {
		return w.pathGone()
	}
	i := slices.IndexFunc(w.listeners, func(l *Listener) bool { return l.fd == fd })
	return w.listeners[i]
}

// pathGone reads one event: of a file that is no folder's, it has no name behind it.
func (w *HangupWatch) pathGone() *Listener {
	var event [unix.SizeofInotifyEvent]byte
	if n, err := unix.Read(w.paths, event[:]); err != nil || n < len(event) {
		return nil
	}
	l := w.byPath[int32(binary.NativeEndian.Uint32(event[:]))]
	var stat unix.Stat_t
	if l == nil || unix.Lstat(l.bound, &stat) != unix.ENOENT {
		return nil
	}
	return l
}

// next blocks until there is an event, and returns its descriptor.
func (w *HangupWatch) next() (int, error) {
	var event [1]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, event[:], 0)
		switch {
		case err == nil && n == 0:
			err = w.alarm.Wait()
		case err == nil:
			return int(event[0].Fd), nil
		}
		if err != nil && err != unix.EINTR {
			return -1, err
		}
	}
}

// Close ends a Wait and frees the watch's own descriptors; the listeners stay as they are. A second Close does nothing.
func (w *HangupWatch) Close() error {
	// No error matters: the counter cannot overflow, and a closed watch is seen below.
	_, _ = unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	w.waiting.Lock()
	defer w.waiting.Unlock()
	if w.epoll < 0 {
		return nil
	}
	err := errors.Join(w.alarm.Close(), CloseFD(w.epoll), CloseFD(w.stop), CloseFD(w.paths))
	w.epoll, w.stop, w.paths = -1, -1, -1
	return err
}

// CloseFD closes a descriptor, unless it is below zero, for none.
func CloseFD(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}
