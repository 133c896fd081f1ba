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
	listeners   map[int32]*Listener
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
	w := &HangupWatch{epoll: epoll, stop: stop, listeners: make(map[int32]*Listener)}
	if err := w.addAll(listeners); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot watch listeners: %w", err), w.Close())
	}
	return w, nil
}

func (w *HangupWatch) addAll(listeners []*Listener) error {
	for _, l := range listeners {
		if !l.Stream() {
			continue
		}
		w.listeners[int32(l.fd)] = l
		// No EPOLLIN: connections wake the app's set and not this one. EPOLLHUP and EPOLLERR are always on, EPOLLRDHUP
		// is what a unix listener gives for SHUT_RD, and EPOLLET tells of each shutdown once.
		if err := w.add(l.fd, unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
			return err
		}
	}
	return w.add(w.stop, unix.EPOLLIN)
}

func (w *HangupWatch) add(fd int, events uint32) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// Wait blocks until an app has shut a listener down, and returns it; after Close it returns net.ErrClosed.
// One goroutine calls it at a time; it holds a thread meanwhile.
func (w *HangupWatch) Wait() (*Listener, error) {
	w.waiting.Lock()
	defer w.waiting.Unlock()
	var event [1]unix.EpollEvent
	for w.epoll >= 0 {
		n, err := unix.EpollWait(w.epoll, event[:], -1)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot watch listeners: %w", err)
		}
		l, ok := w.listeners[event[0].Fd]
		if !ok {
			break
		}
		return l, nil
	}
	return nil, net.ErrClosed
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
