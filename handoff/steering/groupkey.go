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
	V6Only bool `json:",omitzero"`
	Device int  `json:",omitzero"`
}

func (k groupKey) compare(other groupKey) int {
	return cmp.Or(k.At.Compare(other.At), cmp.Compare(k.Device, other.Device), compareBool(k.V6Only, other.V6Only))
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

func (k groupKey) String() string {
	var more string
	if k.V6Only {
		more = " (IPv6 only)"
	} else if k.At.Addr() == netip.IPv6Unspecified() {
		more = " (IPv4 too)"
	}
	if k.Device != 0 {
		more += fmt.Sprintf(" of network device %d", k.Device)
	}
	return k.At.String() + more
}

// collides tells whether the kernel would refuse one of the two if neither had SO_REUSEPORT.
func (k groupKey) collides(other groupKey) bool {
	apart := k.Device != 0 && other.Device != 0 && k.Device != other.Device
	return !apart && k.At.Port() == other.At.Port() && sockdiag.Collide(k.At.Addr(), k.V6Only, other.At.Addr(), other.V6Only)
}

// takesFrom tells whether connections come here that came to the other address while nobody listened here.
func (k groupKey) takesFrom(other groupKey) bool {
	return k != other && k.collides(other) && k.rank() >= other.rank()
}

// rank is the kernel's order: sockets of one address come before those of any (__inet_lookup_listener), and then scores
// count (compute_score in net/ipv4/inet_hashtables.c). What is even may go either way.
func (k groupKey) rank() (rank int) {
	if !k.At.Addr().IsUnspecified() {
		rank += 4
	}
	if k.Device != 0 {
		rank++
	}
	if k.At.Addr().Is4() {
		rank++
	}
	return rank
}

// keyOf reads where a bound socket is.
func keyOf(fd int) (groupKey, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return groupKey{}, err
	}
	return keyAt(fd, inetaddr.Of(name))
}

// keyWanted is where a bind of the socket to the address will put it; false for what cannot be steered, and for a socket that is bound
// already: the kernel will refuse it (__inet_bind in net/ipv4/af_inet.c), and what it has prepared for stays.
func keyWanted(fd int, at netip.AddrPort) (groupKey, bool, error) {
	if at.Port() == 0 {
		return groupKey{}, false, nil
	}
	tcp, err := isTCP(fd)
	if err != nil || !tcp {
		return groupKey{}, false, err
	}
	if bound, err := isBound(fd); err != nil || bound {
		return groupKey{}, false, err
	}
	k, err := keyAt(fd, at)
	return k, err == nil, err
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

func keyAt(fd int, at netip.AddrPort) (k groupKey, err error) {
	k.At = netip.AddrPortFrom(at.Addr().WithZone(""), at.Port())
	if k.Device, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err != nil && err != unix.ENOPROTOOPT {
		return groupKey{}, err // the option is of Linux 5.0
	}
	if at.Addr().Is4() {
		return k, nil
	}
	only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	// A bind to one address sets it (__inet6_bind in net/ipv6/af_inet6.c).
	k.V6Only = only != 0 || !at.Addr().IsUnspecified() && !at.Addr().Is4In6()
	return k, err
}

// ParseSockaddr reads struct sockaddr_in or sockaddr_in6, whose ports are in network order. It gives no zone, and the zero
// value for what names no port: a socket that is bound to that is not steered.
func ParseSockaddr(b []byte) netip.AddrPort {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}
	}
	port, family := binary.BigEndian.Uint16(b[2:]), binary.NativeEndian.Uint16(b)
	switch {
	case port == 0:
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), port)
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6-4: // the kernel takes one without its last field (SIN6_LEN_RFC2133)
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), port)
	}
	return netip.AddrPort{}
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
		return 0, 0, fmt.Errorf("cannot inspect a socket: %w", err)
	}
	return stat.Ino, int(stat.Uid), nil
}
