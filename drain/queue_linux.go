package drain

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// queued reports whether a connection waits in the queue of ln, and whether the queue could be inspected.
func queued(ln net.Listener) (waits, seen bool) {
	ready := 0
	seen = look(ln, func(fd int) {
		ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return ready > 0, seen
}

// queueLength is the number of connections in the queue of a TCP listener. For other listeners it is unknown, and 0.
func queueLength(ln net.Listener) (n int) {
	look(ln, func(fd int) {
		// For a listening socket this field is the queue's length (tcp_get_info in net/ipv4/tcp.c).
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(info.Unacked)
		}
	})
	return n
}

// look calls f with the listener's descriptor, if it has one that is open.
func look(ln net.Listener, f func(fd int)) bool {
	conn, ok := ln.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) }) == nil
}
