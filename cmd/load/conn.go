package load

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection of one client.
type conn struct {
	net.Conn
	in     *bufio.Reader
	used   bool // an exchange on it has succeeded
	drops  bool // the server may get a request that it has no answer to any more
	unhook func() bool
	on     Connection
}

// broke says on which connection something went wrong.
func (c *conn) broke(err error) error {
	if err == nil {
		return nil
	}
	return broken{err, c.on}
}

// clientEnd is empty where the kernel does not tell.
func clientEnd(c net.Conn) string {
	local := c.LocalAddr()
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return local.String()
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return ""
	}
	var stat syscall.Stat_t
	if err := errors.Join(raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &stat) }), err); err != nil {
		return ""
	}
	return strconv.FormatUint(stat.Ino, 10)
}

// dial opens a connection that ends with ctx, or when the caller closes it.
func dial(ctx context.Context, cfg Config) (*conn, error) {
	dialer := net.Dialer{Timeout: cfg.Timeout, KeepAlive: -1}
	switch {
	case cfg.Network == "unixgram":
		dialer.Control = autobind
	case cfg.From != "":
		dialer.LocalAddr, dialer.Control = &net.TCPAddr{IP: net.ParseIP(cfg.From)}, portByConnect
	}
	c, err := dialer.DialContext(ctx, cfg.Network, cfg.Addr)
	if err != nil {
		return nil, dialFailure(err)
	}
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	return &conn{Conn: c, in: bufio.NewReader(c), unhook: unhook, drops: cfg.Lingers, on: Connection{clientEnd(c), time.Now()}}, nil
}

// autobind gives a unix socket an address of its own (unix(7)): a datagram socket without one cannot be answered.
func autobind(_, _ string, raw syscall.RawConn) error {
	var bound error
	err := raw.Control(func(fd uintptr) { bound = syscall.Bind(int(fd), &syscall.SockaddrUnix{}) })
	return errors.Join(err, bound)
}

// portByConnect lets the kernel choose the port when it knows the server's address too: without that it would give each
// port once only, and none that has been used in the last minute (IP_BIND_ADDRESS_NO_PORT in ip(7)).
func portByConnect(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, set)
}

// link is a client's connection, opened when it is needed and kept until it is closed.
type link struct {
	load *Load
	conn *conn
}

func (l *link) open() error {
	if l.conn != nil {
		return nil
	}
	conn, err := dial(l.load.hard, l.load.cfg)
	if err != nil {
		return err
	}
	l.conn = conn
	return nil
}

func (l *link) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

func (c *conn) Close() error {
	c.unhook()
	return c.Conn.Close()
}

// ended reports whether the server has closed its side of an idle connection.
func (c *conn) ended() bool {
	tcp, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	var peeked error
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, peeked = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err != nil || peeked != unix.EAGAIN
}

// send writes a request and waits for the first byte of the answer, which it leaves unread.
func (c *conn) send(request []byte, timeout time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := c.Write(request)
	if err == nil {
		_, err = c.in.Peek(1)
	}
	if err == nil {
		return nil
	}
	return c.unanswered(err)
}

// unanswered says what happened to a request that got no byte of an answer.
func (c *conn) unanswered(err error) error {
	eof := errors.Is(err, io.EOF)
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	switch {
	case c.used && (reset || eof && (c.drops || unacknowledged(c.Conn))):
		return fail(IdleClosed, "the server closed the idle connection: %w", err)
	case eof:
		return fail(Lost, "the server closed the connection and did not answer: %w", err)
	}
	return err
}
