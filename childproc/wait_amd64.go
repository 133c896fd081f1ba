package childproc

import "golang.org/x/sys/unix"

func waitOf(number uint64) wait {
	switch number {
	case unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG,
		unix.SYS_READ, unix.SYS_READV:
		return onDescriptor
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2:
		return onEpoll
	case unix.SYS_POLL, unix.SYS_PPOLL:
		return onPollfds
	case unix.SYS_RESTART_SYSCALL:
		return onPollfdsAgain
	case unix.SYS_SELECT, unix.SYS_PSELECT6:
		return onSet
	}
	return onNothing
}
