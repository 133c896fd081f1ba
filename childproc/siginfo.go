package childproc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What si_code says of a dead child (siginfo.h).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// childInfo is siginfo_t as waitid(2) fills it; x/sys leaves the union opaque.
type childInfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
}

func exitOf(info *unix.Siginfo) Exit {
	child := (*childInfo)(unsafe.Pointer(info))
	switch child.code {
	case cldExited:
		return Exit{Code: int(child.status)}
	case cldKilled, cldDumped:
		return Exit{Signal: syscall.Signal(child.status)}
	}
	return Exit{Unknown: true}
}
