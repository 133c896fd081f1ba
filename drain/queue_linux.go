package drain

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// queued tells whether a connection waits in the queue of ln, and whether that can be seen at all.
func queued(ln net.Listener) (waits, seen bool) {
	ready := 0
	seen = look(ln, func(fd int) {
		ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return ready > 0, seen
}

// queueLength is how many connections wait in the queue of a TCP listener; of others it is not known, and 0.
func queueLength(ln net.Listener) (n int) {
	look(ln, func(fd int) {
		// For a socket that listens this field is the length (tcp_get_info in net/ipv4/tcp.c).
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
