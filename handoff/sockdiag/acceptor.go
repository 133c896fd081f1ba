package sockdiag

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Acceptor gives the inode of the other end of a TCP connection to this machine, as the process that accepted it has
// it, and 0 as long as nobody has. It tells which of several processes on one listener a connection went to.
func Acceptor(conn net.Conn) (uint64, error) {
	server, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return 0, fmt.Errorf("cannot find who accepted a connection to %s: not TCP", conn.RemoteAddr())
	}
	client, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return 0, fmt.Errorf("cannot find who accepted a connection from %s: not TCP", conn.LocalAddr())
	}
	var inode uint64
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		q := inetQuery{family: family, protocol: unix.IPPROTO_TCP, states: 1 << unix.BPF_TCP_ESTABLISHED, ports: onePort(server.Port())}
		err := q.each(func(s inetSocket) {
			if s.remote.Port() == client.Port() && s.remote.Addr() == client.Addr().Unmap() {
				inode = s.inode
			}
		})
		if err != nil {
			return 0, err
		}
	}
	return inode, nil
}
