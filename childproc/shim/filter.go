package shim

import (
	"runtime"
	"syscall"
	"unsafe"
)

// abi is what an architecture calls the system calls that matter here, and itself (AUDIT_ARCH_* in linux/audit.h).
type abi struct {
	arch, socket, bind, listen, seccomp uint32
	unlink, unlinkat                    uint32
}

// noCall is the number of no system call.
const noCall = 0xffffffff

func abiOf(architecture string) (abi, bool) {
	switch architecture {
	case "amd64":
		return abi{arch: 0xc000003e, socket: 41, bind: 49, listen: 50, seccomp: 317, unlink: 87, unlinkat: 263}, true
	case "arm64":
		return abi{arch: 0xc00000b7, socket: 198, bind: 200, listen: 201, seccomp: 277, unlink: noCall, unlinkat: 35}, true
	}
	return abi{}, false
}

// What package syscall does not know, from linux/prctl.h, linux/seccomp.h and linux/in.h.
const (
	prSetNoNewPrivs      = 38
	prCapAmbient         = 47
	prCapAmbientClearAll = 4

	seccompSetModeFilter = 1
	flagSpecAllow        = 1 << 2 // leaves the mitigations of Spectre as they are
	flagNewListener      = 1 << 3
	flagWaitKillable     = 1 << 5 // Linux 5.19: signals do not interrupt a call that is being dealt with

	retErrno  = 0x00050000
	retNotify = 0x7fc00000
	retAllow  = 0x7fff0000

	protocolMPTCP = 262
)

// Where struct seccomp_data has them; of the third argument the low word, on a little-endian machine.
const (
	offsetNumber   = 0
	offsetArch     = 4
	offsetThirdArg = 16 + 2*8
)

// asked are the calls that grace is asked about.
func (a abi) asked(unlink bool) []uint32 {
	if unlink {
		return []uint32{a.bind, a.listen, a.unlink, a.unlinkat}
	}
	return []uint32{a.bind, a.listen}
}

// filter asks grace about some calls. It denies MPTCP, which Go tries first and which cannot be steered:
// EPROTONOSUPPORT makes it take TCP. All other calls are allowed by their number alone, because the kernel runs no
// filter for those (seccomp_cache_prepare in kernel/seccomp.c).
func (a abi) filter(asked []uint32) []syscall.SockFilter {
	n := uint8(len(asked))
	program := []syscall.SockFilter{load(offsetArch), unlessEqual(a.arch, n+4), load(offsetNumber)}
	for i, number := range asked {
		program = append(program, ifEqual(number, n+3-uint8(i)))
	}
	return append(program,
		unlessEqual(a.socket, 2),
		load(offsetThirdArg),
		ifEqual(protocolMPTCP, 2),
		give(retAllow),
		give(retNotify),
		give(retErrno|uint32(syscall.EPROTONOSUPPORT)),
	)
}

func load(offset uint32) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: offset}
}

// ifEqual skips some instructions if the value is k, unlessEqual if it is not.
func ifEqual(k uint32, skip uint8) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jt: skip, K: k}
}

func unlessEqual(k uint32, skip uint8) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jf: skip, K: k}
}

func give(verdict uint32) syscall.SockFilter {
	return syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: verdict}
}

func setNoNewPrivs() error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// capture installs the filter and gives its listener to grace, which holds the only one from the exec on.
func capture(conn int, unlink bool) (string, error) {
	listener, err := listen(unlink)
	if err != nil {
		return "seccomp", err
	}
	// The notifications' descriptor is close-on-exec (init_listener in kernel/seccomp.c), and so is the connection.
	if err := syscall.Sendmsg(conn, []byte{0}, syscall.UnixRights(listener), nil, 0); err != nil {
		return "listener", err
	}
	n, err := readByte(conn)
	if err == nil && n == 0 {
		err = syscall.ECONNRESET // grace did not take it
	}
	return "listener", err
}

// readByte waits for the acknowledgement: an app that binds before somebody
// listens would wait for an answer that nobody has been asked for.
func readByte(conn int) (int, error) {
	for {
		n, err := syscall.Read(conn, make([]byte, 1))
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func listen(unlink bool) (int, error) {
	a, ok := abiOf(runtime.GOARCH)
	if !ok {
		return -1, syscall.ENOSYS
	}
	const flags = flagNewListener | flagSpecAllow
	filter := a.filter(a.asked(unlink))
	fd, errno := a.install(filter, flags|flagWaitKillable)
	if errno == syscall.EINVAL {
		fd, errno = a.install(filter, flags)
	}
	if errno != 0 {
		return -1, errno
	}
	return fd, nil
}

func (a abi) install(filter []syscall.SockFilter, flags uintptr) (int, syscall.Errno) {
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := syscall.RawSyscall(uintptr(a.seccomp), seccompSetModeFilter, flags, uintptr(unsafe.Pointer(&program)))
	return int(fd), errno
}
