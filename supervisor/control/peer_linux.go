package control

import (
	"net"

	"golang.org/x/sys/unix"
)

// credentials are of the process that has connected, or, at a client, of the one that
// listens.
func credentials(c *net.UnixConn) (uid, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var found *unix.Ucred
	if broken := raw.Control(func(fd uintptr) {
		found, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); broken != nil {
		return -1, 0, broken
	}
	if err != nil {
		return -1, 0, err
	}
	return int(found.Uid), int(found.Pid), nil
}
