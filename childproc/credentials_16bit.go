//go:build 386 || arm

package childproc

import "golang.org/x/sys/unix"

// Without "32" they take users and groups of 16 bits.
const (
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetgid    = unix.SYS_SETGID32
	sysSetuid    = unix.SYS_SETUID32
)
