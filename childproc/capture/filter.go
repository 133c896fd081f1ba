package capture

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// abi is what an architecture calls the system calls that matter here, and itself.
type abi struct {
	arch, socket, bind, listen uint32
	unlink, unlinkat           uint32
}

// noCall is the number of no system call.
const noCall = 0xffffffff

func abiOf(architecture string) (abi, bool) {
	switch architecture {
	case "amd64":
		return abi{arch: unix.AUDIT_ARCH_X86_64, socket: 41, bind: 49, listen: 50, unlink: 87, unlinkat: 263}, true
	case "arm64":
		return abi{arch: unix.AUDIT_ARCH_AARCH64, socket: 198, bind: 200, listen: 201, unlink: noCall, unlinkat: 35}, true
	}
	return abi{}, false
}

// Filter is the program of seccomp(2) that has grace asked about an app's bind and listen, and about its unlink too. The error is
// ENOSYS on an architecture whose calls are not known.
func Filter(unlink bool) ([]unix.SockFilter, error) {
	a, ok := abiOf(runtime.GOARCH)
	if !ok {
		return nil, unix.ENOSYS
	}
	return a.filter(a.asked(unlink)), nil
}

// FilterFlags are those of seccomp(2) for Filter: the call gives a descriptor of the notifications, mitigations of Spectre stay as
// they are, and from Linux 5.19 on signals do not interrupt a call that is being dealt with. A kernel that knows these says of a
// program at no address that it cannot be read, and otherwise that they are not valid.
func FilterFlags() uintptr {
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	const killable = flags | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, killable, 0)
	if errno == unix.EFAULT {
		return killable
	}
	return flags
}

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
func (a abi) filter(asked []uint32) []unix.SockFilter {
	n := uint8(len(asked))
	program := []unix.SockFilter{load(offsetArch), unlessEqual(a.arch, n+4), load(offsetNumber)}
	for i, number := range asked {
		program = append(program, ifEqual(number, n+3-uint8(i)))
	}
	return append(program,
		unlessEqual(a.socket, 2),
		load(offsetThirdArg),
		ifEqual(unix.IPPROTO_MPTCP, 2),
		give(unix.SECCOMP_RET_ALLOW),
		give(unix.SECCOMP_RET_USER_NOTIF),
		give(unix.SECCOMP_RET_ERRNO|uint32(unix.EPROTONOSUPPORT)),
	)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// ifEqual skips some instructions if the value is k, unlessEqual if it is not.
func ifEqual(k uint32, skip uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: skip, K: k}
}

func unlessEqual(k uint32, skip uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
}

func give(verdict uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
}
