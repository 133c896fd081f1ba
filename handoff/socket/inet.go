package socket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

const lookupTimeout = 5 * time.Second

func bindInet(a Address) (*Listener, error) {
	return bindFirst(a, nil, sharing{})
}

// sharing says how a socket is to be bound beside others.
type sharing struct {
	prepare func(fd int, host netip.AddrPort) error // comes before the bind; nil: nothing is to be done
	known   func(inode uint64) bool                 // of those that may listen at a reserved address; nil: none may
}

// Occupied tells who listens at an address, or nil for nobody.
func Occupied(a Address) (*InUseError, error) {
	if a.Unix() {
		return occupiedPath(a)
	}
	hosts, err := a.hosts()
	if err != nil {
		return nil, fmt.Errorf("cannot look up %s: %w", a.Addr, err)
	}
	for _, host := range hosts {
		sockets, err := sockdiag.InetHolding(a.Network, host, a.v6Only())
		if err != nil {
			return nil, err
		}
		if len(sockets) > 0 {
			inUse := (*InUseError)(nil)
			errors.As(InUse(a, sockets, nil), &inUse)
			return inUse, nil
		}
	}
	return nil, nil
}

// BindBeside reserves an address, of an Address with Steer, at which sockets of the owner listen that are known.
func BindBeside(a Address, owner int, known func(inode uint64) bool) (*Listener, error) {
	own := func(fd int, host netip.AddrPort) error {
		if owner == unix.Geteuid() {
			return nil
		}
		if err := unix.Fchown(fd, owner, -1); err != nil {
			return fmt.Errorf("cannot bind %s: %w: the sockets there belong to uid %d (run grace as the same user, or as root)", host, err, owner)
		}
		return nil
	}
	return bindFirst(a, nil, sharing{own, known})
}

// BindShared makes a listening TCP socket for an Address with Steer, which others have too: at known, or, where that is the
// zero value, as Bind chooses it. It calls share before the bind, with the descriptor and what it is about to be bound to,
// to make it share the address; EADDRINUSE of that gives an *InUseError. The caller closes the Listener.
func BindShared(a Address, known netip.AddrPort, share func(fd int, host netip.AddrPort) error) (*Listener, error) {
	a.Steer = false // it does more than to reserve the address
	if known.IsValid() {
		return bindFirst(a, []netip.AddrPort{known}, sharing{prepare: share})
	}
	return bindFirst(a, nil, sharing{prepare: share})
}

// bindFirst goes on to the next host only where the machine lacks the family of one. The hosts are the Address's own if
// none are given.
func bindFirst(a Address, hosts []netip.AddrPort, share sharing) (*Listener, error) {
	var err error
	if len(hosts) == 0 {
		hosts, err = a.hosts()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot bind %s: %w", a.Addr, err)
	}
	l, err := bindHost(a, hosts[0], share)
	if err != nil && familyMissing(err) && len(hosts) > 1 {
		return bindFirst(a, hosts[1:], share)
	}
	return l, err
}

// familyMissing is true of a kernel without IPv6 (EAFNOSUPPORT) and of one where it is switched off.
func familyMissing(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// hosts are the addresses that bindFirst tries.
func (a *Address) hosts() ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	ips, err := a.ips(host)
	if err != nil {
		return nil, err
	}
	hosts := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		hosts[i] = netip.AddrPortFrom(ip, uint16(number))
	}
	return hosts, nil
}

func (a *Address) ips(host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	v4, v6 := a.families()
	switch {
	case host != "":
		return lookUp(host, v4, v6)
	case !v6:
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	case !v4:
		return []netip.Addr{netip.IPv6Unspecified()}, nil
	}
	return []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()}, nil
}

func (a *Address) families() (v4, v6 bool) {
	v6 = !strings.HasSuffix(a.Network, "4")
	v4 = !strings.HasSuffix(a.Network, "6") && (a.V6Only == v6Default || !v6)
	return v4, v6
}

func lookUp(host string, v4, v6 bool) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	network := "ip"
	switch {
	case !v6:
		network = "ip4"
	case !v4:
		network = "ip6"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	first := slices.IndexFunc(ips, func(ip netip.Addr) bool { return ip.Unmap().Is4() })
	return []netip.Addr{ips[max(first, 0)].Unmap()}, nil
}

func bindHost(a Address, host netip.AddrPort, share sharing) (*Listener, error) {
	l, err := newListener(a, inetaddr.Family(host.Addr()))
	if err != nil {
		return nil, err
	}
	if err := l.openInet(host, share); err != nil {
		return nil, errors.Join(err, unix.Close(l.fd))
	}
	return l, nil
}

func (s sharing) before(fd int, host netip.AddrPort) error {
	if s.prepare == nil {
		return nil
	}
	return s.prepare(fd, host)
}

func (l *Listener) openInet(host netip.AddrPort, share sharing) error {
	sockaddr, err := inetaddr.Sockaddr(host)
	if err != nil {
		return fmt.Errorf("cannot bind %s: %w", l.address.Addr, err)
	}
	if err := l.setInetOptions(host.Addr()); err != nil {
		return fmt.Errorf("cannot set up a socket for %s: %w", l.address.Addr, err)
	}
	if err := share.before(l.fd, host); err == unix.EADDRINUSE {
		return explainInet(l.address, host, err)
	} else if err != nil {
		return err
	}
	if err := unix.Bind(l.fd, sockaddr); err != nil {
		return explainInet(l.address, host, err)
	}
	name, err := unix.Getsockname(l.fd)
	if err != nil {
		return fmt.Errorf("cannot read the address of %s: %w", l.address.Addr, err)
	}
	bound := inetaddr.Of(name)
	l.bound = bound.String()
	if l.address.Steer {
		return l.aloneAt(bound, share.known)
	}
	if !l.Stream() {
		return nil
	}
	// It fails with EADDRINUSE too, when another socket with SO_REUSEADDR was bound but not listening at bind.
	if err := listen(l.fd, l.address.Backlog); err != nil {
		return explainInet(l.address, bound, err)
	}
	return nil
}

// aloneAt fails if another socket listens at the address: with SO_REUSEPORT the bind succeeds beside it, as beside the
// sockets of apps that a killed grace has left.
func (l *Listener) aloneAt(at netip.AddrPort, known func(inode uint64) bool) error {
	sockets, err := sockdiag.InetHolding(l.address.Network, at, l.address.v6Only())
	if known != nil {
		maps.DeleteFunc(sockets, func(inode uint64, _ int) bool { return known(inode) })
	}
	if err != nil || len(sockets) == 0 {
		return nil // a kernel that cannot tell has none
	}
	return InUse(l.address, sockets, nil)
}

func (l *Listener) setInetOptions(ip netip.Addr) error {
	if l.Stream() {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if l.address.Steer {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if !ip.Is6() {
		return nil
	}
	only := 0
	if l.address.v6Only() {
		only = 1
	}
	return unix.SetsockoptInt(l.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
}

func (a *Address) v6Only() bool {
	return a.V6Only == v6Closed || a.V6Only == v6Default && strings.HasSuffix(a.Network, "6")
}

// explainInet adds what the user can do about a failed bind.
func explainInet(a Address, host netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		sockets, err := sockdiag.InetHolding(a.Network, host, a.v6Only())
		return InUse(a, sockets, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("cannot bind %s: %w: port %d is privileged here; start grace as root and the app with --user, "+
			"or `setcap cap_net_bind_service=+ep` the grace binary, or lower net.ipv4.ip_unprivileged_port_start, "+
			"or let systemd give the right with AmbientCapabilities=CAP_NET_BIND_SERVICE", a.Addr, err, host.Port())
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("cannot bind %s: %w: this machine does not have the address %s", a.Addr, err, host.Addr())
	}
	return fmt.Errorf("cannot bind %s: %w", a.Addr, err)
}

func (l *Listener) reviveInet() error {
	bound, err := netip.ParseAddrPort(l.bound)
	if err != nil {
		return err
	}
	sockaddr, err := inetaddr.Sockaddr(bound)
	if err != nil {
		return err
	}
	// A port that the kernel chose is given back at shutdown (SOCK_BINDPORT_LOCK in tcp_set_state); one that was asked
	// for is still bound, which is the EINVAL.
	if err := unix.Bind(l.fd, sockaddr); err != nil && err != unix.EINVAL {
		return err
	}
	return listen(l.fd, l.address.Backlog)
}
