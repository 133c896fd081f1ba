// Package sibling makes a socket beside another one that listens at the same address.
package sibling

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bind makes a TCP socket, close-on-exec, that is bound where the listening one is, and belongs to the same user: only such
// sockets may share an address (inet_bind_conflict in net/ipv4/inet_connection_sock.c). The listening one needs SO_REUSEPORT by now.
// The caller listens, and closes it.
func Bind(listening int) (fd int, err error) {
	return open(listening, func(fd int) error {
		for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
				return err
			}
		}
		return own(fd, listening)
	})
}

// Alone gives an error for a listening socket beside which none can be made: of MPTCP, or with SO_REUSEPORT, as others may be there then,
// and a program of theirs.
func Alone(listening int) error {
	protocol, err := unix.GetsockoptInt(listening, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || protocol != unix.IPPROTO_TCP {
		return errors.Join(err, unix.EPROTONOSUPPORT)
	}
	shared, err := unix.GetsockoptInt(listening, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err != nil || shared != 0 {
		return errors.Join(err, unix.EADDRINUSE)
	}
	return nil
}

// Unshare ends what Bind began, when what it made is closed: SO_REUSEPORT of the listening socket, and what the kernel remembers of the port,
// as long as that is bound, so that the same user may share it without a further look (sk_reuseport_match in
// net/ipv4/inet_connection_sock.c). It forgets that for a socket in repair mode, which takes CAP_NET_ADMIN and may be bound anywhere.
func Unshare(listening int) error {
	if err := unix.SetsockoptInt(listening, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0); err != nil {
		return err
	}
	fd, err := open(listening, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
	})
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// open makes a socket that is bound where the listening one is.
func open(listening int, equip func(fd int) error) (fd int, err error) {
	name, err := unix.Getsockname(listening)
	if err != nil {
		return -1, err
	}
	family, err := unix.GetsockoptInt(listening, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return -1, err
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if err = equip(fd); err == nil {
		err = copyAll(placing, fd, listening)
	}
	if err == nil {
		err = unix.Bind(fd, name)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func own(fd, listening int) error {
	var mine, other unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &mine), unix.Fstat(listening, &other)); err != nil {
		return err
	}
	if mine.Uid == other.Uid {
		return nil
	}
	if err := unix.Fchown(fd, int(other.Uid), -1); err != nil {
		return fmt.Errorf("%w: the socket at this address belongs to uid %d (run grace as the same user, or as root)", err, other.Uid)
	}
	return nil
}

type option struct{ level, name int }

// placing are the options that decide what address it is.
var placing = []option{
	{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX},
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
	{unix.IPPROTO_IP, unix.IP_FREEBIND},
	{unix.IPPROTO_IP, unix.IP_TRANSPARENT},
}

// inherited are the options that a connection has from its listener (sk_clone_lock in net/core/sock.c), but for TCP_FASTOPEN, which
// only saves a round trip.
var inherited = []option{
	{unix.IPPROTO_IP, unix.IP_TOS}, // sets SO_PRIORITY too (ip(7))
	{unix.IPPROTO_IP, unix.IP_TTL},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_LINGER},
	{unix.SOL_SOCKET, unix.SO_MARK},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT},
	{unix.SOL_SOCKET, unix.SO_RCVTIMEO},
	{unix.SOL_SOCKET, unix.SO_SNDTIMEO},
	{unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE},
	{unix.IPPROTO_TCP, unix.TCP_CONGESTION},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
}

// Inherit gives a socket the options of another that connections inherit. An error names those that need a right or can not be had.
func Inherit(fd, from int) error {
	return errors.Join(copyAll(inherited, fd, from), copyBuffers(from, fd))
}

func copyAll(options []option, fd, from int) error {
	var errs []error
	for _, o := range options {
		errs = append(errs, o.copy(from, fd))
	}
	return errors.Join(errs...)
}

// copy sets an option only where the other socket has it otherwise: most are as they are by default, and some cannot be set to
// what they are then.
func (o option) copy(from, to int) error {
	want, failed := o.get(from)
	is, err := o.get(to)
	if failed != nil || err != nil || bytes.Equal(is, want) {
		return nil // what cannot be read is of another family, or younger than the kernel
	}
	if err := o.set(to, want); err != nil {
		return fmt.Errorf("cannot set option %d of level %d: %w", o.name, o.level, err)
	}
	return nil
}

// get reads an option of whatever type: the longest is TCP_CONGESTION's name.
func (o option) get(fd int) ([]byte, error) {
	var value [16]byte
	length := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(o.level), uintptr(o.name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return nil, errno
	}
	return value[:length], nil
}

func (o option) set(fd int, value []byte) error {
	return unix.SetsockoptString(fd, o.level, o.name, string(value))
}

// copyBuffers copies sizes that were set: others the kernel finds by itself. It doubles what it is given (socket(7)).
func copyBuffers(from, to int) error {
	locked, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		return nil // before Linux 5.14 nothing tells
	}
	var errs []error
	for flag, buffer := range map[int][2]int{1: {unix.SO_SNDBUF, unix.SO_SNDBUFFORCE}, 2: {unix.SO_RCVBUF, unix.SO_RCVBUFFORCE}} { // SOCK_SNDBUF_LOCK and SOCK_RCVBUF_LOCK
		if locked&flag != 0 {
			errs = append(errs, copyBuffer(from, to, buffer[0], buffer[1]))
		}
	}
	return errors.Join(errs...)
}

func copyBuffer(from, to, name, force int) error {
	value, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, name)
	if err != nil {
		return err
	}
	if unix.SetsockoptInt(to, unix.SOL_SOCKET, force, value/2) == nil {
		return nil
	}
	return unix.SetsockoptInt(to, unix.SOL_SOCKET, name, value/2)
}

// Backlog reads how long the queue of a listening socket may become (tcp_get_info in net/ipv4/tcp.c).
func Backlog(listening int) int {
	info, err := unix.GetsockoptTCPInfo(listening, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Sacked == 0 {
		return unix.SOMAXCONN
	}
	return int(info.Sacked)
}
