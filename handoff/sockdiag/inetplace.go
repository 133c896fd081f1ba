package sockdiag

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// portRange is from first to last, both of them included.
type portRange struct{ first, last uint16 }

func onePort(port uint16) []portRange { return []portRange{{port, port}} }

// rangesAtMost bounds what the kernel compares each socket with.
const rangesAtMost = 16

// rangesOf are the ports and no others, unless that takes too many ranges.
func rangesOf(ports []uint16) []portRange {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	var ranges []portRange
	for _, port := range ports {
		if last := len(ranges) - 1; last >= 0 && int(port) <= int(ranges[last].last)+1 {
			ranges[last].last = port
			continue
		}
		ranges = append(ranges, portRange{port, port})
	}
	if len(ranges) > rangesAtMost {
		return []portRange{{ports[0], ports[len(ports)-1]}}
	}
	return ranges
}

// inetPlace is where connections come in: an address, or all of a family (the zero one), and a port.
type inetPlace struct {
	family uint8
	ip     netip.Addr
	port   uint16
}

func placeOf(at netip.AddrPort) inetPlace {
	p := inetPlace{unix.AF_INET, at.Addr().WithZone("").Unmap(), at.Port()}
	if at.Addr().Is6() {
		p.family = unix.AF_INET6
	}
	if p.ip.IsUnspecified() {
		p.ip = netip.Addr{}
	}
	return p
}

func placesOf(addresses []netip.AddrPort) map[inetPlace]bool {
	places := make(map[inetPlace]bool)
	for _, at := range addresses {
		places[placeOf(at)] = true
	}
	return places
}

// anyAddress is where a socket listens that takes connections to all addresses of the family.
func (p inetPlace) anyAddress() inetPlace { return inetPlace{family: p.family, port: p.port} }

// eachAt asks for all of the addresses at once, and calls visit with each socket at one of them, and the place that was
// asked for.
func (q inetQuery) eachAt(addresses []netip.AddrPort, visit func(at inetPlace, s inetSocket, message []byte)) error {
	asked := placesOf(addresses)
	for _, query := range q.at(addresses) {
		err := query.eachMessage(func(message []byte) {
			s := parseInetSocket(message)
			at := inetPlace{query.family, s.local, s.port}
			for _, at := range []inetPlace{at, at.anyAddress()} {
				if asked[at] {
					visit(at, s, message)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// at is one question for each family, however many addresses there are: the kernel goes through all sockets of the
// machine for each.
func (q inetQuery) at(addresses []netip.AddrPort) []inetQuery {
	var queries []inetQuery
	ports := make(map[uint8][]uint16)
	for _, at := range addresses {
		if at.IsValid() {
			p := placeOf(at)
			ports[p.family] = append(ports[p.family], p.port)
		}
	}
	for family, of := range ports {
		q.family, q.ports = family, rangesOf(of)
		queries = append(queries, q)
	}
	return queries
}

// Handshake is a connection that has not been established yet, as the kernel names it: a listening socket's address, and
// the client's.
type Handshake struct {
	Local  netip.Addr
	Remote netip.AddrPort
}

// Handshakes are those that go on at each of the TCP addresses, given as the listening sockets are bound.
func Handshakes(addresses []netip.AddrPort) (map[netip.AddrPort]map[Handshake]bool, error) {
	found := make(map[inetPlace]map[Handshake]bool)
	for _, at := range addresses {
		found[placeOf(at)] = make(map[Handshake]bool)
	}
	query := inetQuery{protocol: unix.IPPROTO_TCP, states: 1<<unix.BPF_TCP_SYN_RECV | 1<<unix.BPF_TCP_NEW_SYN_RECV}
	err := query.eachAt(addresses, func(at inetPlace, s inetSocket, _ []byte) {
		if s.inode == 0 {
			found[at][Handshake{s.local, s.remote}] = true
		}
	})
	each := make(map[netip.AddrPort]map[Handshake]bool)
	for _, at := range addresses {
		each[at] = found[placeOf(at)]
	}
	return each, err
}
