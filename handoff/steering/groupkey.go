package steering

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// groupKey is what sockets of one reuseport group have in common. An IPv4 address of an AF_INET6 socket stays one of
// IPv6's here, because the kernel tells those groups apart.
type groupKey struct {
	At     netip.AddrPort
	V6Only bool
	Device int
}

func (p groupKey) compare(other groupKey) int {
	return cmp.Or(p.At.Compare(other.At), cmp.Compare(p.Device, other.Device), compareBool(p.V6Only, other.V6Only))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (p groupKey) String() string {
	var more string
	if p.V6Only {
		more = " (IPv6 only)"
	} else if p.At.Addr() == netip.IPv6Unspecified() {
		more = " (IPv4 too)"
	}
	if p.Device != 0 {
		more += fmt.Sprintf(" of network device %d", p.Device)
	}
	return p.At.String() + more
}

// collides tells whether the kernel would refuse one of the two if neither had SO_REUSEPORT.
func (p groupKey) collides(other groupKey) bool {
	s := sockdiag.InetSocket{Local: other.At.Addr().WithZone("").Unmap(), V6Only: other.V6Only}
	apart := p.Device != 0 && other.Device != 0 && p.Device != other.Device
	return !apart && p.At.Port() == other.At.Port() && sockdiag.Collide(p.At.Addr(), p.V6Only, s)
}

// takesFrom tells whether connections come here that came to the other site while nobody listened here.
func (p groupKey) takesFrom(other groupKey) bool {
	return p != other && p.collides(other) && p.rank() >= other.rank()
}

// rank is the kernel's order: sockets of one address come before those of any (__inet_lookup_listener), and then scores
// count (compute_score in net/ipv4/inet_hashtables.c). What is even may go either way.
func (p groupKey) rank() (rank int) {
	if !p.At.Addr().IsUnspecified() {
		rank += 4
	}
	if p.Device != 0 {
		rank++
	}
	if p.At.Addr().Is4() {
		rank++
	}
	return rank
}

// siteOf reads where a bound socket is.
func siteOf(fd int) (groupKey, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return groupKey{}, err
	}
	return siteAt(fd, inetaddr.Of(name))
}

// siteWanted reads where a bind of the socket will put it; false for what cannot be steered, and for a socket that is bound
// already: the kernel will refuse it (__inet_bind in net/ipv4/af_inet.c), and what it has prepared for stays.
func siteWanted(fd int, sockaddr []byte) (groupKey, bool, error) {
	at, ok := readSockaddr(sockaddr)
	if !ok || at.Port() == 0 {
		return groupKey{}, false, nil
	}
	tcp, err := isTCP(fd)
	if err != nil || !tcp {
		return groupKey{}, false, err
	}
	if bound, err := isBound(fd); err != nil || bound {
		return groupKey{}, false, err
	}
	p, err := siteAt(fd, at)
	return p, err == nil, err
}

func isBound(fd int) (bool, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false, err
	}
	if at, ok := name.(*unix.SockaddrUnix); ok {
		return at.Name != "" && at.Name != "@", nil // so package unix calls none
	}
	return inetaddr.Of(name).Port() != 0, nil
}

// NamesPort reports whether a sockaddr has a port of the internet's. What is bound to any other cannot be steered.
func NamesPort(sockaddr []byte) bool {
	at, ok := readSockaddr(sockaddr)
	return ok && at.Port() != 0
}

func siteAt(fd int, at netip.AddrPort) (p groupKey, err error) {
	p.At = netip.AddrPortFrom(at.Addr().WithZone(""), at.Port())
	if p.Device, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err != nil && err != unix.ENOPROTOOPT {
		return groupKey{}, err // the option is of Linux 5.0
	}
	if at.Addr().Is4() {
		return p, nil
	}
	only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	// A bind to one address sets it (__inet6_bind in net/ipv6/af_inet6.c).
	p.V6Only = only != 0 || !at.Addr().IsUnspecified() && !at.Addr().Is4In6()
	return p, err
}

// readSockaddr reads struct sockaddr_in or sockaddr_in6, whose ports are in network order.
func readSockaddr(b []byte) (netip.AddrPort, bool) {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), port), true
	case unix.AF_INET6:
		if len(b) < unix.SizeofSockaddrInet6-4 { // the kernel takes one without its last field (SIN6_LEN_RFC2133)
			return netip.AddrPort{}, false
		}
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), port), true
	}
	return netip.AddrPort{}, false
}

// errMPTCP is for what Go listens with since 1.24, unless it is told that there is no such protocol.
var errMPTCP = errors.New("it is an MPTCP socket, and a group of those takes no program (EOPNOTSUPP): " +
	"let the app listen with plain TCP (in Go GODEBUG=multipathtcp=0)")

func isTCP(fd int) (bool, error) {
	var options [3]int
	for i, name := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		if err != nil {
			return false, err
		}
		options[i] = value
	}
	inet := options[0] == unix.AF_INET || options[0] == unix.AF_INET6
	if !inet || options[1] != unix.SOCK_STREAM {
		return false, nil
	}
	if options[2] == unix.IPPROTO_MPTCP {
		return false, errMPTCP
	}
	return options[2] == unix.IPPROTO_TCP, nil
}

func identity(fd int) (inode uint64, uid int, err error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, 0, fmt.Errorf("cannot look at a socket: %w", err)
	}
	return stat.Ino, int(stat.Uid), nil
}
