//go:build !linux

package load

import "net"

// unacknowledged cannot be told here: an end of file on an idle connection is taken for the server's closing it.
func unacknowledged(net.Conn) bool { return true }
