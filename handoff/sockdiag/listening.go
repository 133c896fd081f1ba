package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Listening are the TCP sockets that the processes listen on, addresses by inode. What cannot be looked
// into is left out.
func Listening(pids []int) (map[uint64]netip.AddrPort, error) {
	open, err := OpenSockets(pids)
	if err != nil {
		return nil, err
	}
	found := make(map[uint64]netip.AddrPort)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		q := Query{family: family, Protocol: unix.IPPROTO_TCP, States: 1 << unix.BPF_TCP_LISTEN, ports: []portRange{{0, 1<<16 - 1}}}
		err := q.eachMessage(func(message []byte) {
			if s := parseInetSocket(message); s.Inode != 0 && open[s.Inode] {
				found[s.Inode] = netip.AddrPortFrom(s.Local, binary.BigEndian.Uint16(message[4:]))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
