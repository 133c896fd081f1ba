//go:build !linux

package control

import (
	"errors"
	"net"
)

func credentials(*net.UnixConn) (uid, pid int, err error) {
	return -1, 0, errors.New("cannot tell a peer's credentials: only on Linux")
}
