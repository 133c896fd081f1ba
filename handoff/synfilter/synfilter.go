// Package synfilter keeps new connections from a listening TCP socket, whoever has it open. A client that begins to connect sends again after
// a second; what has begun goes on, and what is in the queue stays there.
package synfilter

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

// program drops what begins a connection, whose sender tries again after a second, and passes what belongs to one,
// such as the ACK that ends a handshake. What a socket's filter sees begins with the TCP header (tcp_v4_rcv and
// tcp_v6_rcv in net).
var program = [...]unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: tcpFlags},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: tcpSYN, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// Kind is whose filter a socket has.
type Kind int

// The kinds.
const (
	None    Kind = iota
	Own          // from Attach, of this process or one before it
	Foreign      // the app's, or it cannot be told
)

// Of asks the kernel, as the filter can be of a grace process before.
func Of(fd int) Kind {
	switch filter, err := read(fd); {
	case err != nil:
		return Foreign
	case len(filter) == 0:
		return None
	case slices.Equal(filter, program[:]):
		return Own
	}
	return Foreign
}

// Attach reports whether no connection begins any more. A socket with a filter of somebody else's is left alone.
func Attach(fd int) bool {
	switch Of(fd) {
	case Own:
		return true
	case Foreign:
		return false
	case None:
	}
	filter := program
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}) == nil
}

// Detach undoes Attach, and does nothing for a socket without it.
func Detach(fd int) error {
	if Of(fd) != Own {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		return fmt.Errorf("cannot open a listener for new connections again: %w", err)
	}
	return nil
}

// read gives a socket's filter, with EINVAL for one that is longer than the program.
func read(fd int) ([]unix.SockFilter, error) {
	var filter [len(program)]unix.SockFilter
	length := uint32(len(filter)) // in instructions, not in bytes (sk_get_filter in net/core/filter.c)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&filter[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return nil, errno
	}
	return filter[:length], nil
}
