package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"golang.org/x/sys/unix"
)

// Fresh makes a socket to put in the place of one that the instance is about to bind and that cannot be duplicated: bound to the
// address, not listening yet, blocking, close-on-exec. The caller owns it, and gives a duplicate of it to Listen when the
// instance listens. It is -1 if the address is not to be steered. A unix.Errno in the error is the answer for the
// instance's bind. Options that the instance has set on its own socket are unknown, and this one lacks
// them; but it is for IPv6 only if the instance binds [::] beside an IPv4 socket of its own, and it has TCP_NODELAY.
func (s *Steering) Fresh(m InstanceKey, at netip.AddrPort) (fd int, err error) {
	if at.Port() == 0 {
		return -1, nil
	}
	fd, err = unix.Socket(inetaddr.Family(at.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot create a socket for the app: %w", err)
	}
	if err := s.guessV6Only(m, fd, at); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	left, err := s.Take(m, fd, at)
	if err != nil || left >= 0 {
		return left, errors.Join(err, unix.Close(fd))
	}
	decision, err := s.bindFresh(m, fd, at)
	if err != nil || decision == NotSteered {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// guessV6Only goes by what the kernel would refuse otherwise.
func (s *Steering) guessV6Only(m InstanceKey, fd int, at netip.AddrPort) error {
	wanted, ok, err := keyWanted(fd, at)
	if err != nil || !ok || wanted.At.Addr() != netip.IPv6Unspecified() {
		return err
	}
	rivals := s.rivalsOf(&binding{InstanceKey: m, Key: wanted})
	if !slices.ContainsFunc(rivals, func(r rival) bool { return s.live(m, r.inode) }) {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
}

// bindFresh allows a port in TIME_WAIT, as nearly all servers do.
func (s *Steering) bindFresh(m InstanceKey, fd int, at netip.AddrPort) (Decision, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return NotSteered, err
	}
	decision, err := s.Bind(m, fd, at)
	if decision == Conflict {
		return decision, fmt.Errorf("%w: %w", unix.EADDRINUSE, err)
	}
	if err != nil || decision == NotSteered {
		return NotSteered, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return NotSteered, err
	}
	address, err := inetaddr.Sockaddr(at)
	if err != nil {
		return NotSteered, err
	}
	return decision, unix.Bind(fd, address)
}
