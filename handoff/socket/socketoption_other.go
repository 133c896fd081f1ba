//go:build !linux

package socket

import "golang.org/x/sys/unix"

// optionKinds are those that all systems have.
func optionKinds() []optionKind {
	return []optionKind{{name: "nodelay", fits: (*Address).tcp, read: readSwitch, set: func(fd, value int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, value)
	}}}
}
