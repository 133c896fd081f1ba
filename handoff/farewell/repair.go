package farewell

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Some servers, such as hyper, lighttpd and apache, shut silent connections down when they stop (SHUT_WR), before they close them. Their
// clients would be sent the end, though this process has the connection, too, and what they have sent meanwhile would be lost.
//
// So the window of a held connection is set to nothing: what the app sends then waits, as for a client that reads nothing, and so
// does its end (tcp_send_fin in net/ipv4/tcp_output.c). TCP asks every 200 ms or later whether there is a window; the filter drops the
// answer as long as the connection is held. A new socket can go on with the connection where it was before the end, in
// the repair mode of TCP that CRIU moves connections with, and the client notices nothing. If this process dies, the lease ends,
// the next answer opens the window, and what waits is sent.

// silence keeps apps from sending their end on connections that are held.
func (f *Farewell) silence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.known {
		if c.held != nil && c.held.window == nil {
			c.held.closeWindow()
		}
	}
}

// closeWindow leaves the connection held as it is where that is not possible.
func (h *hold) closeWindow() {
	open, err := swapWindow(h.fd, repairOffQuietly, func(w *windows) { w.sent = 0 })
	if err == nil {
		h.window = &open.sent
	}
}

// openWindow lets the app send again. With repairOff TCP asks at once whether it may, with repairOffQuietly when it wants to.
func (h *hold) openWindow(off int) {
	if h.window == nil {
		return
	}
	size := *h.window
	h.window = nil
	_, _ = swapWindow(h.fd, off, func(w *windows) { // a connection that has ended meanwhile has none
		if w.sent == 0 {
			w.sent = size
		}
	})
}

// swapWindow returns what was before. The end of repair mode takes SO_REUSEADDR away (do_tcp_setsockopt in net/ipv4/tcp.c), without
// which nobody could bind the address for a minute after the connection.
func swapWindow(fd, off int, change func(*windows)) (before windows, err error) {
	reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	if err == nil {
		err = setTCP(fd, unix.TCP_REPAIR, repairOn)
	}
	if err != nil {
		return before, err
	}
	before, err = windowsOf(fd)
	if err == nil {
		after := before
		change(&after)
		err = after.set(fd)
	}
	return before, errors.Join(err, setTCP(fd, unix.TCP_REPAIR, off), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse))
}

// shut tells whether the app has shut the connection down, and the client does not know.
func (h *hold) shut() bool {
	if h.window == nil {
		return false
	}
	info, err := unix.GetsockoptTCPInfo(h.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_FIN_WAIT1
}

// move goes on with a connection that the app has shut down, and reports whether it could. consumed is what the app had read when
// it was held.
func (h *hold) move(consumed uint64) bool {
	info, err := unix.GetsockoptTCPInfo(h.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != unix.BPF_TCP_FIN_WAIT1 || info.Bytes_received != consumed || info.Unacked != 0 || info.Notsent_bytes != 1 {
		return false // there was more than the end
	}
	if err := setTCP(h.fd, unix.TCP_REPAIR, repairOn); err != nil {
		return false
	}
	moved, err := h.goOn(info)
	_ = setTCP(h.fd, unix.TCP_REPAIR, repairOffQuietly) // the app reads ECONNABORTED, and not EPERM
	if err != nil {
		return false
	}
	unix.Close(h.fd)
	h.fd, h.window = moved, nil
	return true
}

// Values for TCP_REPAIR_QUEUE (include/uapi/linux/tcp.h).
const (
	receiveQueue = 1
	sendQueue    = 2
)

// Values for TCP_REPAIR.
const (
	repairOn         = 1
	repairOff        = 0  // with a probe of the window
	repairOffQuietly = -1 // without
)

func setTCP(fd, option, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, value))
}

// queueSequence is the number that comes next in a queue.
func queueSequence(fd, queue int) (uint32, error) {
	if err := setTCP(fd, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return 0, err
	}
	at, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	return uint32(at), os.NewSyscallError("getsockopt", err)
}

// option is struct tcp_repair_opt.
type option struct{ code, value uint32 }

// Codes of options (RFC 9293, 3.1; RFC 7323; RFC 2018).
const (
	optionSegment    = 2
	optionWindow     = 3
	optionSelective  = 4
	optionTimestamps = 8
)

// endpoint is what makes one end of a connection.
type endpoint struct {
	sent, received uint32 // the next numbers
	owner          int    // the user whose listeners may share its port
	local, remote  unix.Sockaddr
	family         int
	options        []option
	timestamp      int
	windows        windows
}

// windows is struct tcp_repair_window.
type windows struct{ sentUpdate, sent, largest, received, receivedUpdate uint32 }

// describe is for a connection in repair mode that its app has shut down.
func (h *hold) describe(info *unix.TCPInfo) (e endpoint, err error) {
	var segment int
	var stat unix.Stat_t
	err = inTurn(
		func() (err error) { e.sent, err = queueSequence(h.fd, sendQueue); return },
		func() (err error) { e.received, err = queueSequence(h.fd, receiveQueue); return },
		func() (err error) { segment, err = unix.GetsockoptInt(h.fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG); return },
		func() (err error) {
			e.timestamp, err = unix.GetsockoptInt(h.fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
			return
		},
		func() (err error) { e.windows, err = windowsOf(h.fd); return },
		func() (err error) { e.family, err = unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_DOMAIN); return },
		func() (err error) { e.local, err = unix.Getsockname(h.fd); return },
		func() (err error) { e.remote, err = unix.Getpeername(h.fd); return },
		func() error { return unix.Fstat(h.fd, &stat) },
	)
	if err != nil {
		return e, err
	}
	e.sent-- // the end has a number
	e.windows.sent = *h.window
	e.owner, e.options = int(stat.Uid), optionsOf(info, segment)
	return e, nil
}

func windowsOf(fd int) (w windows, err error) {
	length := uint32(unsafe.Sizeof(w))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW,
		uintptr(unsafe.Pointer(&w)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return w, os.NewSyscallError("getsockopt", errno)
	}
	return w, nil
}

func (w windows) set(fd int) error {
	return setRaw(fd, unix.TCP_REPAIR_WINDOW, (*[unsafe.Sizeof(w)]byte)(unsafe.Pointer(&w))[:])
}

// Bits of tcpi_options, and where tcpi_snd_wscale and tcpi_rcv_wscale are.
const (
	hasTimestamps = 1
	hasSelective  = 2
	hasScaling    = 4
)

func optionsOf(info *unix.TCPInfo, segment int) []option {
	options := []option{{optionSegment, uint32(segment)}}
	if info.Options&hasSelective != 0 {
		options = append(options, option{optionSelective, 0})
	}
	if info.Options&hasScaling != 0 {
		scales := (*[8]byte)(unsafe.Pointer(info))[6]
		options = append(options, option{optionWindow, uint32(scales&0xf) | uint32(scales>>4)<<16})
	}
	if info.Options&hasTimestamps != 0 {
		options = append(options, option{optionTimestamps, 0})
	}
	return options
}

// goOn takes a connection in repair mode to a new socket. The old one is disconnected without a word to the client. What comes
// while neither has the connection is answered by a reset: the new one is made ready before.
func (h *hold) goOn(info *unix.TCPInfo) (int, error) {
	e, err := h.describe(info)
	if err != nil {
		return -1, err
	}
	moved, err := unix.Socket(e.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = inTurn(
		func() error { return setTCP(moved, unix.TCP_REPAIR, repairOn) },
		func() error { return setSequence(moved, receiveQueue, e.received) },
		func() error { return setSequence(moved, sendQueue, e.sent) },
		func() error { return os.NewSyscallError("bind", unix.Bind(moved, e.local)) },
		func() error { return disconnect(h.fd) },
		func() error { return os.NewSyscallError("connect", unix.Connect(moved, e.remote)) },
		func() error { return e.restoreOptions(moved) },
		func() error { return setTCP(moved, unix.TCP_TIMESTAMP, e.timestamp) },
		func() error { return e.windows.set(moved) },
		func() error { return setTCP(moved, unix.TCP_REPAIR, repairOffQuietly) },
		func() error { return e.shareAddress(moved) },
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(moved))
	}
	return moved, nil
}

func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func disconnect(fd int) error {
	unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	if errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	return nil
}

func (e endpoint) restoreOptions(fd int) error {
	return setRaw(fd, unix.TCP_REPAIR_OPTIONS, unsafe.Slice((*byte)(unsafe.Pointer(&e.options[0])), len(e.options)*int(unsafe.Sizeof(option{}))))
}

func setSequence(fd, queue int, at uint32) error {
	if err := setTCP(fd, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return err
	}
	return setTCP(fd, unix.TCP_QUEUE_SEQ, int(int32(at)))
}

// shareAddress lets the next generation bind the address of the connection. The end of repair mode forbids it; a listener gives it to
// the connections that it accepts.
func (e endpoint) shareAddress(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil && e.owner != os.Geteuid() {
		err = unix.Fchown(fd, e.owner, -1)
	}
	return err
}

func setRaw(fd, option int, value []byte) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptString(fd, unix.IPPROTO_TCP, option, string(value)))
}
