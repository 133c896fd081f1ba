package sockdiag

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Listening are the TCP sockets that the processes listen on, addresses by inode. What cannot be looked
// into is left out.
func Listening(pids []int) (map[uint64]netip.AddrPort, error) {
	open, err := openSockets(pids)
	if err != nil {
		return nil, err
	}
	found := make(map[uint64]netip.AddrPort)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		q := inetQuery{family: family, protocol: unix.IPPROTO_TCP, states: 1 << unix.BPF_TCP_LISTEN, ports: []portRange{{0, 1<<16 - 1}}}
		err := q.each(func(s inetSocket) {
			if _, ok := open[s.inode]; ok && s.inode != 0 {
				found[s.inode] = netip.AddrPortFrom(s.local, s.port)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
