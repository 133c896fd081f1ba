package apptest

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Control calls f with the descriptor of a listener or packet socket.
func Control(socket any, f func(fd int)) {
	if l, ok := socket.(interface{ FD() int }); ok {
		f(l.FD())
		return
	}
	raw, err := socket.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	if err != nil {
		panic(err)
	}
}

// InodeBehind gives 0 for nil.
func InodeBehind(socket any) uint64 {
	if socket == nil {
		return 0
	}
	var stat unix.Stat_t
	Control(socket, func(fd int) {
		if err := unix.Fstat(fd, &stat); err != nil {
			panic(err)
		}
	})
	return uint64(stat.Ino)
}
