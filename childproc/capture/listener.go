package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener receives the calls of one app, all processes that come of it included. It owns the descriptor of the
// notifications until Close. One goroutine at a time may call Next; everything else may be called from any.
type Listener struct {
	fd    int
	file  *os.File // fd, known to Go's poller: no thread is held while nothing comes
	conn  syscall.RawConn
	sizes sizes

	mu      sync.Mutex // guards fd, too: that is closed when closed has been set
	closed  bool
	waiting map[uint64]struct{} // ids of the calls that were not answered yet
	last    uint64              // the id of the call that was received last
}

// NewListener takes over the descriptor of a seccomp filter's notifications, also if there is an error.
func NewListener(fd int) (*Listener, error) {
	l := &Listener{fd: fd, waiting: map[uint64]struct{}{}}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot listen to the app's calls: %w", err), unix.Close(fd))
	}
	return l, nil
}

func (l *Listener) open() error {
	var err error
	if l.sizes, err = notifySizes(); err != nil {
		return err
	}
	if err := unix.SetNonblock(l.fd, true); err != nil { // for os.NewFile, which asks for it
		return err
	}
	l.file = os.NewFile(uintptr(l.fd), "seccomp listener")
	l.conn, err = l.file.SyscallConn()
	return err
}

// Receive takes the listener that a shim has sent. conn stays the caller's, and the shim waits for more from it.
func Receive(conn int) (*Listener, error) {
	fd, err := receiveDescriptor(conn)
	if err != nil {
		return nil, err
	}
	return NewListener(fd)
}

func receiveDescriptor(conn int) (int, error) {
	var text [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	n, used, err := receiveMessage(conn, text[:], control)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return -1, fmt.Errorf("cannot receive the app's seccomp listener: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:used])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("cannot receive the app's seccomp listener: %d control messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("cannot receive the app's seccomp listener: %d descriptors, %v", len(fds), err)
	}
	return fds[0], nil
}

func receiveMessage(conn int, text, control []byte) (n, used int, err error) {
	for {
		var flags int
		n, used, flags, _, err = unix.Recvmsg(conn, text, control, unix.MSG_CMSG_CLOEXEC)
		if err == nil && flags&unix.MSG_CTRUNC != 0 {
			err = unix.EMFILE // there was no number for the descriptor (scm_detach_fds in net/core/scm.c)
		}
		if err != unix.EINTR {
			return n, used, err
		}
	}
}

// Next blocks for the next call. It gives io.EOF when no process is left that could call: before Linux 6.11 this takes
// until the last of them was reaped. After Close the error is os.ErrClosed.
func (l *Listener) Next() (Call, error) {
	for {
		n, err := l.receive()
		if err == io.EOF || err == os.ErrClosed || err == os.ErrDeadlineExceeded {
			return Call{}, err
		}
		if err != nil {
			return Call{}, fmt.Errorf("cannot receive the app's calls: %w", err)
		}
		c := l.call(n)
		if c.Valid() { // what was read belongs to the thread that waits
			return c, nil
		}
		l.forget(n.id)
	}
}

func (l *Listener) receive() (notification, error) {
	var n notification
	var failed error
	err := l.conn.Read(func(uintptr) bool {
		n, failed = l.take()
		return failed != unix.EAGAIN
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, os.ErrDeadlineExceeded
	}
	if err != nil { // the file was closed; its own error is not os.ErrClosed
		return n, os.ErrClosed
	}
	return n, failed
}

// take gives EAGAIN if nothing is there. With a single reader the ioctl does not
// block after a poll that saw something: it gives ENOENT if it was killed since.
func (l *Listener) take() (notification, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return notification{}, os.ErrClosed
	}
	for {
		events, err := l.poll()
		switch {
		case err == unix.EINTR || err == nil && events&unix.POLLERR != 0: // a signal (seccomp_notify_poll)
			continue
		case err != nil:
			return notification{}, err
		case events&unix.POLLIN == 0 && events&unix.POLLHUP != 0:
			return notification{}, io.EOF
		case events&unix.POLLIN == 0:
			return notification{}, unix.EAGAIN
		}
		n, err := l.sizes.receive(l.fd)
		if err == nil {
			l.waiting[n.id], l.last = struct{}{}, n.id
		}
		if err != unix.EINTR && err != unix.ENOENT {
			return n, err
		}
	}
}

func (l *Listener) poll() (int16, error) {
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	return fds[0].Revents, err
}

func (l *Listener) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
}

// answer is for each call once. That its thread was killed meanwhile is no error.
func (l *Listener) answer(r response) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.waiting[r.id]; !ok {
		return ErrGone
	}
	delete(l.waiting, r.id)
	return l.send(r)
}

func (l *Listener) send(r response) error {
	err := l.sizes.send(l.fd, r)
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// use lends the descriptor.
func (l *Listener) use(do func(fd int) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	return do(l.fd)
}

// FD is the descriptor of the notifications, open until Close and owned by the Listener. A successor passes a duplicate
// of it to [NewListener], and may call Next once this Listener is suspended and has answered all that it received: of two
// readers one would block for what the other has taken.
func (l *Listener) FD() int { return l.fd }

// Lend shows the descriptor, while it is open for sure.
func (l *Listener) Lend(do func(fd int)) {
	_ = l.use(func(fd int) error { // a closed one is not shown
		do(fd)
		return nil
	})
}

// Last is the number of the call that was received last, 0 before the first.
func (l *Listener) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// lostCalls is far more than come between two times that the state is saved.
const lostCalls = 4096

// LetGo lets the calls go on that a process which was killed has received after this one, and never answered: nobody gets them again,
// and the thread of the app would wait for ever. The kernel numbers the calls one after the other (seccomp_next_notify_id).
func (l *Listener) LetGo(last uint64) error {
	if last == 0 {
		return nil
	}
	return l.use(func(fd int) error {
		for id := last; id < last+lostCalls; id++ {
			err := l.sizes.send(fd, response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
			if err != nil && err != unix.ENOENT && err != unix.EINPROGRESS { // there is none, or it is still to be received
				return err
			}
		}
		return nil
	})
}

// Suspend ends Next with os.ErrDeadlineExceeded. Calls that come from now on wait, for Resume or for a successor.
func (l *Listener) Suspend() error { return l.file.SetReadDeadline(time.Unix(1, 0)) }

// Resume lets Next be called again after Suspend.
func (l *Listener) Resume() error { return l.file.SetReadDeadline(time.Time{}) }

// Close lets the calls go on that were received and not answered, and ends Next.
// Unless a duplicate of the descriptor is open, all later calls fail with ENOSYS.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	var err error
	for id := range l.waiting {
		err = errors.Join(err, l.send(response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}))
	}
	clear(l.waiting)
	l.closed = true
	l.mu.Unlock()
	return errors.Join(err, l.file.Close()) // waits for Next, which may be waiting for the lock
}

// notification is struct seccomp_notif of linux/seccomp.h, response is struct
// seccomp_notif_resp, newDescriptor is struct seccomp_notif_addfd.
type notification struct {
	id     uint64
	thread uint32
	_      uint32
	number int32
	_      uint32
	_      uint64
	args   [6]uint64
}

type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

type newDescriptor struct {
	id       uint64
	flags    uint32
	source   uint32
	number   uint32
	newFlags uint32
}

// sizes is struct seccomp_notif_sizes: a newer kernel's structures may be longer.
type sizes struct{ notification, response, data uint16 }

func notifySizes() (sizes, error) {
	var s sizes
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return s, errno
	}
	return s, nil
}

func (s sizes) receive(fd int) (notification, error) {
	buffer := room(uintptr(s.notification), unsafe.Sizeof(notification{}))
	err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&buffer[0]))
	return *(*notification)(unsafe.Pointer(&buffer[0])), err
}

func (s sizes) send(fd int, r response) error {
	buffer := room(uintptr(s.response), unsafe.Sizeof(r))
	*(*response)(unsafe.Pointer(&buffer[0])) = r
	return ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&buffer[0]))
}

// room is of words because the structures begin with one, and of zeros because the kernel demands it.
func room(kernel, own uintptr) []uint64 {
	return make([]uint64, (max(kernel, own)+7)/8)
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}
