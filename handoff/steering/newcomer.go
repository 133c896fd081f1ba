package steering

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcpFlags = 13 // where the header has them
	tcpSYN   = 0x02
)

// noNewcomers drops what begins a connection, whose sender tries again after a second, and passes what belongs to one,
// such as the ACK that ends a handshake. What a socket's filter sees begins with the TCP header (tcp_v4_rcv and
// tcp_v6_rcv in net).
var noNewcomers = [...]unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: tcpFlags},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: tcpSYN, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// turnAway keeps newcomers from a listening socket, whoever has it. One with a filter of the app's own is left alone, and
// no error matters: a socket that is led to by mistake only is at stake.
func turnAway(fd int) {
	if filter, err := filterOf(fd); err != nil || len(filter) > 0 {
		return
	}
	program := noNewcomers
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// admit undoes turnAway. What it has done can be of a grace before, so the kernel is asked.
func admit(fd int) error {
	filter, err := filterOf(fd)
	if err != nil || !slices.Equal(filter, noNewcomers[:]) {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		return fmt.Errorf("cannot open a listener for new connections again: %w", err)
	}
	return nil
}

// filterOf gives a socket's filter, with EINVAL for one that is longer than noNewcomers.
func filterOf(fd int) ([]unix.SockFilter, error) {
	var filter [len(noNewcomers)]unix.SockFilter
	length := uint32(len(filter)) // in instructions, not in bytes (sk_get_filter in net/core/filter.c)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&filter[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return nil, errno
	}
	return filter[:length], nil
}
