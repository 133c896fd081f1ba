package farewell

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReleaseAbandoned lets the processes have the input that a process which was killed has held back: otherwise they get it when the
// lease is over, and may take a client for silent until then. It is to be called before anything is announced or held here.
func ReleaseAbandoned(pids []int) error {
	p := &processes{pids: func() ([]int, error) { return pids, nil }}
	sockets, err := p.sockets()
	for inode, at := range sockets {
		fd, err := p.duplicate(inode, at)
		if err != nil {
			continue // it was closed, or cannot be had, and then nobody has held it
		}
		if hasProgram(fd) {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // what stays ends with the lease
		}
		unix.Close(fd)
	}
	return errors.Join(err, p.close())
}

// hasProgram tells an extended program from a classic filter, which an app may have set: the kernel does not give its
// instructions (sk_get_filter in net/core/filter.c).
func hasProgram(fd int) bool {
	var length uint32
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&length)), 0)
	return errno == unix.EACCES
}
