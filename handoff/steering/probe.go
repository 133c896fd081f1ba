package steering

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"golang.org/x/sys/unix"
)

// Dial connects to one instance, whichever is selected, if it listens at the TCP address, host:port. The caller owns the
// connection.
func (s *Steering) Dial(ctx context.Context, m InstanceKey, addr string) (net.Conn, error) {
	var ports []uint16
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		port, err := bindAnyPort(raw)
		if err != nil {
			return err
		}
		ports = append(ports, port)
		return s.probe(port, m)
	}}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	// The choice was made when the SYN came.
	for _, port := range ports {
		err = errors.Join(err, s.endProbe(port))
	}
	if err != nil && conn != nil {
		conn.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot reach generation %d at %s: %w", m.Generation, addr, err)
	}
	return conn, nil
}

// bindAnyPort makes the kernel choose the port before the connect, which would be too late.
func bindAnyPort(raw syscall.RawConn) (port uint16, err error) {
	failed := raw.Control(func(fd uintptr) {
		port, err = bindAny(int(fd))
	})
	return port, errors.Join(failed, err)
}

func bindAny(fd int) (uint16, error) {
	var any unix.Sockaddr = &unix.SockaddrInet4{}
	if family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return 0, err
	} else if family == unix.AF_INET6 {
		any = &unix.SockaddrInet6{}
	}
	if err := unix.Bind(fd, any); err != nil {
		return 0, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return inetaddr.Of(bound).Port(), nil
}
