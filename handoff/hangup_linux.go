package handoff

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// HangupWatch tells when an app has shut down a held listener. All generations share the open file description, so
// shutdown(2) by one of them ends the listener for every one, and for clients.
type HangupWatch struct {
	epoll, stop int
	listeners   []*Listener
	watched     map[uint64]bool // inodes
	waiting     sync.Mutex
}

// NewHangupWatch watches those of the listeners that are streams. The caller keeps the listeners open until Close.
func NewHangupWatch(listeners []*Listener) (*HangupWatch, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot watch listeners: %w", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("cannot watch listeners: %w", err)
	}
	w := &HangupWatch{epoll: epoll, stop: stop, watched: make(map[uint64]bool)}
	for _, l := range listeners {
		if l.Stream() {
			w.listeners = append(w.listeners, l)
		}
	}
	if err := errors.Join(w.add(stop, unix.EPOLLIN), w.addNew()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot watch listeners: %w", err), w.Close())
	}
	return w, nil
}

// addNew adds the sockets that are not in the set: all at first, later those that Revive has replaced.
//
// No EPOLLIN: connections wake the app's set and not this one. EPOLLHUP and EPOLLERR are always on, EPOLLRDHUP is what
// a unix listener gives for SHUT_RD, and EPOLLET tells of each shutdown once.
func (w *HangupWatch) addNew() error {
	for _, l := range w.listeners {
		if w.watched[l.inode] {
			continue
		}
		if err := w.add(l.fd, unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
			return err
		}
		w.watched[l.inode] = true
	}
	return nil
}

func (w *HangupWatch) add(fd int, events uint32) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// Wait blocks until an app has shut a listener down, and returns it; after Close it returns net.ErrClosed.
// One goroutine calls it at a time; it holds a thread meanwhile.
func (w *HangupWatch) Wait() (*Listener, error) {
	w.waiting.Lock()
	defer w.waiting.Unlock()
	if w.epoll < 0 {
		return nil, net.ErrClosed
	}
	if err := w.addNew(); err != nil {
		return nil, fmt.Errorf("cannot watch listeners: %w", err)
	}
	fd, err := w.next()
	if err != nil {
		return nil, fmt.Errorf("cannot watch listeners: %w", err)
	}
	for _, l := range w.listeners {
		if l.fd == fd {
			return l, nil
		}
	}
	return nil, net.ErrClosed
}

// next blocks until there is an event, and returns its descriptor.
func (w *HangupWatch) next() (int, error) {
	var event [1]unix.EpollEvent
	for {
		_, err := unix.EpollWait(w.epoll, event[:], -1)
		if err != unix.EINTR {
			return int(event[0].Fd), err
		}
	}
}

// Close ends a Wait and frees the watch's own descriptors; the listeners stay as they are. A second Close does nothing.
func (w *HangupWatch) Close() error {
	// ignore: the counter cannot overflow, and a closed one is seen below
	_, _ = unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	w.waiting.Lock()
	defer w.waiting.Unlock()
	if w.epoll < 0 {
		return nil
	}
	err := errors.Join(unix.Close(w.epoll), unix.Close(w.stop))
	w.epoll, w.stop = -1, -1
	return err
}
