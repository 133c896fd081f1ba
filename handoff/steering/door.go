package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/sibling"
	"golang.org/x/sys/unix"
)

// Door is a listening socket beside another one, with a queue that is full: the kernel drops what begins there (tcp_conn_request in
// net/ipv4/tcp_input.c), and clients begin again after a second. That takes no right, which a filter of the other socket does (synfilter). It
// owns its descriptors until Close; at the end of this process, too, new connections come to the other socket again.
type Door struct {
	fd   int
	from *boundPort // of the connection in the queue
}

// fullWithin is how long the one connection may take that fills the queue, on one machine.
const fullWithin = 100 * time.Millisecond

// The numbers of a group that Shut makes, in the order in which its sockets have begun to listen.
const (
	listenerNumber = iota
	doorNumber
)

// Shut keeps new connections from a listening TCP socket until Close. Connections that have begun go on. The socket must have its address for
// itself, and may not be MPTCP.
func Shut(listener int) (*Door, error) {
	err := sibling.Alone(listener)
	if err == nil {
		err = unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot turn connections away from a listener: %w", err)
	}
	d := &Door{fd: -1}
	if err := d.shut(listener); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot turn connections away from a listener: %w", err), d.Close())
	}
	return d, nil
}

// shut has only the connection that fills the queue come to the door at first.
func (d *Door) shut(listener int) (err error) {
	if d.fd, err = sibling.Bind(listener); err != nil {
		return err
	}
	if err := setHops(d.fd, unix.IP_MINTTL, unix.IPV6_MINHOPCOUNT); err != nil {
		return err
	}
	if err := unix.Listen(d.fd, 0); err != nil {
		return err
	}
	to, err := keyOf(listener)
	if err != nil {
		return err
	}
	at := reachable(to.At)
	if d.from, err = openPort(at.Addr(), 0); err != nil {
		return err
	}
	if err := setHops(d.from.fd, unix.IP_TTL, unix.IPV6_UNICAST_HOPS); err != nil {
		return err
	}
	if err := attachSelector(d.fd, choice{selected: []int{listenerNumber}}, map[uint16][]int{d.from.port: {doorNumber}}); err != nil {
		return err
	}
	if err := d.fill(at); err != nil {
		return err
	}
	return attachSelector(d.fd, choice{selected: []int{doorNumber}}, nil)
}

// setHops has the door drop what comes from others until there is a program, when the kernel chooses between the two sockets: it takes only what
// has not been sent with less than the most hops, as its own connection is.
func setHops(fd, v4, v6 int) error {
	const most = 255
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, v6, most)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, v4, most)
	}
	return err
}

func (d *Door) fill(at netip.AddrPort) error {
	to, err := inetaddr.Sockaddr(at)
	if err != nil {
		return err
	}
	if err := unix.Connect(d.from.fd, to); err != nil && err != unix.EINPROGRESS {
		return err
	}
	for until := time.Now().Add(fullWithin); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, int(max(time.Until(until), 0).Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err == nil && n == 0:
			return errors.New("its own connection does not come")
		default:
			return err
		}
	}
}

// Close lets new connections come to the other socket.
func (d *Door) Close() error {
	var errs []error
	if d.fd >= 0 {
		errs = append(errs, unix.Close(d.fd))
	}
	if d.from != nil {
		errs = append(errs, unix.Close(d.from.fd))
	}
	return errors.Join(errs...)
}
