//go:build !linux

package sockdiag

import (
	"errors"
	"net"
)

// Acceptor returns an error.
func Acceptor(net.Conn) (uint64, error) {
	return 0, errors.New("cannot find who accepted a connection: only on Linux")
}
