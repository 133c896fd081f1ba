package apptest

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// SocketOptions are all options, each with a value that differs from the kernel's own.
var SocketOptions = map[string]struct {
	Value         string
	Level, Option int
	Want          int
	Listener      bool // it is the listener's own, and no connection has it
}{
	"nodelay":            {"false", unix.IPPROTO_TCP, unix.TCP_NODELAY, 0, false},
	"keepalive":          {"true", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, false},
	"keepalive-time":     {"17s", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 17, false},
	"keepalive-interval": {"13s", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 13, false},
	"keepalive-probes":   {"3", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3, false},
	"user-timeout":       {"1500ms", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1500, false},
	"receive-buffer":     {"16K", unix.SOL_SOCKET, unix.SO_RCVBUF, 32 << 10, false},
	"send-buffer":        {"24K", unix.SOL_SOCKET, unix.SO_SNDBUF, 48 << 10, false},
	"mark":               {"0x10", unix.SOL_SOCKET, unix.SO_MARK, 16, false},
	"defer-accept":       {"1s", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1, true},
	"fastopen":           {"7", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 7, true},
	"freebind":           {"true", unix.IPPROTO_IP, unix.IP_FREEBIND, 1, true},
}

// CheckOptions opens a socket with options, and wants them on a connection to it, or on the socket itself.
func CheckOptions(t *testing.T, options string, open func(t *testing.T, options string) (int, string)) {
	t.Helper()
	fd, bound := open(t, options)
	connection := AcceptFrom(t, fd, bound)
	if !strings.Contains(options, "send-buffer") {
		t.Errorf("only %s is set", options)
	}
	for option := range strings.SplitSeq(options, "&") {
		name, _, _ := strings.Cut(option, "=")
		want, of := SocketOptions[name], connection
		if want.Listener {
			of = fd
		}
		if got := OptionOf(t, of, want.Level, want.Option); got != want.Want {
			t.Errorf("%s is %d, not %d", option, got, want.Want)
		}
	}
}

// AcceptFrom gives the server's end of a new connection, on which the client has sent something: defer-accept waits for that.
func AcceptFrom(t *testing.T, fd int, bound string) int {
	t.Helper()
	conn := Dial(t, "tcp", bound)
	_, err := conn.Write([]byte("hello"))
	Must(t, err)
	Must(t, unix.SetNonblock(fd, false))
	accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	Must(t, err)
	t.Cleanup(func() { unix.Close(accepted) })
	return accepted
}

// OptionOf reads an option.
func OptionOf(t *testing.T, fd, level, option int) int {
	t.Helper()
	value, err := unix.GetsockoptInt(fd, level, option)
	Must(t, err)
	return value
}
