package socket

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// optionKinds is the table of all socket options. The kernel's limits are those of do_tcp_setsockopt in net/ipv4/tcp.c.
func optionKinds() []optionKind {
	day := 24 * time.Hour
	return []optionKind{
		{name: "nodelay", fits: (*Address).tcp, read: readSwitch, set: setting(unix.IPPROTO_TCP, unix.TCP_NODELAY)},
		{name: "keepalive", fits: (*Address).tcp, read: readSwitch, set: setting(unix.SOL_SOCKET, unix.SO_KEEPALIVE)},
		{name: "keepalive-time", fits: (*Address).tcp, read: readSpan(time.Second, 32767*time.Second), set: setting(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)},
		{name: "keepalive-interval", fits: (*Address).tcp, read: readSpan(time.Second, 32767*time.Second), set: setting(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)},
		{name: "keepalive-probes", fits: (*Address).tcp, read: readNumber(1, 127), set: setting(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)},
		{name: "user-timeout", fits: (*Address).tcp, read: readSpan(time.Millisecond, day), set: setting(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)},
		{name: "defer-accept", fits: (*Address).unsteered, read: readSpan(time.Second, day), set: setting(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)},
		{name: "fastopen", fits: (*Address).tcp, read: readNumber(1, math.MaxInt32), set: setting(unix.IPPROTO_TCP, unix.TCP_FASTOPEN)},
		{name: "receive-buffer", fits: (*Address).buffered, read: readSize, set: buffer("rmem_max", unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)},
		{name: "send-buffer", fits: (*Address).buffered, read: readSize, set: buffer("wmem_max", unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)},
		{name: "mark", fits: (*Address).inet, read: readNumber(0, math.MaxUint32), set: setting(unix.SOL_SOCKET, unix.SO_MARK)},
		{name: "freebind", fits: (*Address).inet, read: readSwitch, set: setting(unix.IPPROTO_IP, unix.IP_FREEBIND), early: true},
	}
}

func setting(level, option int) func(fd, value int) error {
	return func(fd, value int) error { return unix.SetsockoptInt(fd, level, option, value) }
}

// buffer goes beyond what the machine allows everybody, if grace may. The kernel cuts what it does not allow without a
// word, and doubles the rest (socket(7)).
func buffer(limit string, option, force int) func(fd, value int) error {
	return func(fd, value int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, value) == nil {
			return nil
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value); err != nil {
			return err
		}
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err == nil && got/2 < value {
			err = fmt.Errorf("this machine allows %d bytes without CAP_NET_ADMIN: raise net.core.%s", got/2, limit)
		}
		return err
	}
}
