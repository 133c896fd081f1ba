package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Listener is a bound socket that grace holds for its apps: a raw descriptor, non-blocking and close-on-exec.
//
// It is never a net.Listener or an os.File: Go's poller would wake grace for every connection that the app accepts
// from the shared description, and some calls would switch the description to blocking for the app too.
//
// The Listener owns its descriptor until Close. Its methods may be called from several goroutines, Close from one,
// after all others.
type Listener struct {
	address Address
	fd      int
	bound   string
	inode   uint64
	path    pathID
}

// Bind makes the socket that a describes, and for a stream network listens on it.
//
// An address that another process has gives an *InUseError. A unix path with a socket on which nobody answers is
// replaced; any other file stays untouched, and is an error. Host names are looked up once, IPv4 first.
func Bind(a Address) (*Listener, error) {
	if a.unix() {
		return bindUnix(a)
	}
	return bindInet(a)
}

// FD is the descriptor, open until Close and owned by the Listener.
func (l *Listener) FD() int { return l.fd }

// Name is the name of the address.
func (l *Listener) Name() string { return l.address.Name }

// Address is what the socket was bound from.
func (l *Listener) Address() Address { return l.address }

// Network is the network of the address.
func (l *Listener) Network() string { return l.address.Network }

// Bound is the address the socket really has: IP:port with the port the kernel chose for :0, a path, or @name.
func (l *Listener) Bound() string { return l.bound }

// Stream tells whether connections are accepted from the socket.
func (l *Listener) Stream() bool { return l.address.stream() }

// Inode is the socket's number in /proc/PID/fd and in the kernel's socket tables.
func (l *Listener) Inode() uint64 { return l.inode }

// Close closes the descriptor, and removes a unix path if it still leads to this socket.
// Apps that were given the socket keep it. A second Close does nothing.
func (l *Listener) Close() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	return errors.Join(l.unlink(), unix.Close(fd))
}

// ErrReplaced says that an address has a listener again, but that the instances which run hold the dead one.
var ErrReplaced = errors.New("a new socket has taken the place of one that was shut down; " +
	"only instances started from now on will have it")

// Revive listens again on a stream socket that an app has shut down; if none has, it does nothing. The connections
// that waited in the queue are lost: the kernel has reset them already.
//
// The kernel never opens a unix socket again that was shut down. There Revive binds a new one at the same path and
// under the same FD, with another Inode, and returns ErrReplaced. In the abstract namespace it fails: the dead socket
// keeps the name.
func (l *Listener) Revive() error {
	if !l.Stream() {
		return fmt.Errorf("cannot revive %s: a %s socket does not listen", l.bound, l.Network())
	}
	if !hungUp(l.fd) {
		return nil
	}
	revive := l.reviveInet
	if l.address.unix() {
		revive = l.replaceUnix
	}
	err := revive()
	if err != nil && err != ErrReplaced {
		return fmt.Errorf("cannot listen on %s again: %w", l.bound, err)
	}
	return err
}

func (l *Listener) reviveInet() error {
	bound, err := netip.ParseAddrPort(l.bound)
	if err != nil {
		return err
	}
	sockaddr, err := inetSockaddr(bound)
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

// listen takes backlog 0 as the longest queue: the kernels cut a negative number to their somaxconn.
func listen(fd, backlog int) error {
	if backlog == 0 {
		backlog = -1
	}
	return unix.Listen(fd, backlog)
}

func (a *Address) kind() int {
	if a.stream() {
		return unix.SOCK_STREAM
	}
	return unix.SOCK_DGRAM
}

const lookupTimeout = 5 * time.Second

func bindInet(a Address) (*Listener, error) {
	hosts, err := a.hosts()
	if err != nil {
		return nil, fmt.Errorf("cannot bind %s: %w", a.Addr, err)
	}
	return bindFirst(a, hosts)
}

// bindFirst goes on to the next host only where the machine lacks the family of one.
func bindFirst(a Address, hosts []netip.AddrPort) (*Listener, error) {
	l, err := bindHost(a, hosts[0])
	if err != nil && familyMissing(err) && len(hosts) > 1 {
		return bindFirst(a, hosts[1:])
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
	v4 = !strings.HasSuffix(a.Network, "6") && (a.V6Only == V6OnlyDefault || !v6)
	return v4, v6
}

func lookUp(host string, v4, v6 bool) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	network := "ip"
	if !v6 {
		network = "ip4"
	}
	if !v4 {
		network = "ip6"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	first := slices.IndexFunc(ips, func(ip netip.Addr) bool { return ip.Unmap().Is4() })
	return []netip.Addr{ips[max(first, 0)].Unmap()}, nil
}

func bindHost(a Address, host netip.AddrPort) (*Listener, error) {
	sockaddr, err := inetSockaddr(host)
	if err != nil {
		return nil, fmt.Errorf("cannot bind %s: %w", a.Addr, err)
	}
	family := unix.AF_INET
	if host.Addr().Is6() {
		family = unix.AF_INET6
	}
	l, err := newListener(a, family)
	if err != nil {
		return nil, err
	}
	if err := l.bindInet(host, sockaddr); err != nil {
		unix.Close(l.fd)
		return nil, err
	}
	return l, nil
}

func (l *Listener) bindInet(host netip.AddrPort, sockaddr unix.Sockaddr) error {
	if err := l.setInetOptions(host.Addr()); err != nil {
		return fmt.Errorf("cannot set up a socket for %s: %w", l.address.Addr, err)
	}
	err := unix.Bind(l.fd, sockaddr)
	if err == nil && l.Stream() {
		// listen fails with EADDRINUSE too, when another socket with SO_REUSEADDR was bound but not listening at bind.
		err = listen(l.fd, l.address.Backlog)
	}
	if err != nil {
		return explainInet(l.address, host, err)
	}
	name, err := unix.Getsockname(l.fd)
	if err != nil {
		return fmt.Errorf("cannot read the address of %s: %w", l.address.Addr, err)
	}
	l.bound = inetAddrPort(name).String()
	return nil
}

func (l *Listener) setInetOptions(ip netip.Addr) error {
	if l.Stream() {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
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
	return a.V6Only == V6OnlyYes || a.V6Only == V6OnlyDefault && strings.HasSuffix(a.Network, "6")
}

func newListener(a Address, family int) (*Listener, error) {
	fd, err := socket(family, a.kind())
	if err != nil {
		return nil, fmt.Errorf("cannot make a socket for %s: %w", a.Addr, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot make a socket for %s: %w", a.Addr, err)
	}
	return &Listener{address: a, fd: fd, inode: uint64(stat.Ino)}, nil
}

func inetSockaddr(host netip.AddrPort) (unix.Sockaddr, error) {
	ip, port := host.Addr(), int(host.Port())
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, nil
	}
	if ip.Zone() == "" {
		return &unix.SockaddrInet6{Addr: ip.As16(), Port: port}, nil
	}
	zone, err := net.InterfaceByName(ip.Zone())
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", ip.Zone(), err)
	}
	return &unix.SockaddrInet6{Addr: ip.As16(), Port: port, ZoneId: uint32(zone.Index)}, nil
}

func inetAddrPort(name unix.Sockaddr) netip.AddrPort {
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(name.Addr)
		if zone, err := net.InterfaceByIndex(int(name.ZoneId)); err == nil {
			ip = ip.WithZone(zone.Name)
		}
		return netip.AddrPortFrom(ip, uint16(name.Port))
	}
	return netip.AddrPort{}
}

// explainInet adds what the user can do about a failed bind.
func explainInet(a Address, host netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		sockets, err := inetHolding(a.Network, host, a.v6Only())
		return inUse(a, sockets, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("cannot bind %s: %w: port %d is privileged; start grace as root and the app with --user, "+
			"or `setcap cap_net_bind_service=+ep` the grace binary, or lower net.ipv4.ip_unprivileged_port_start, "+
			"or let systemd give the right with AmbientCapabilities=CAP_NET_BIND_SERVICE", a.Addr, err, host.Port())
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("cannot bind %s: %w: this machine does not have the address %s", a.Addr, err, host.Addr())
	}
	return fmt.Errorf("cannot bind %s: %w", a.Addr, err)
}
