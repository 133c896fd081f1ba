package handoff

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// handshakeTime is how long a handshake that began before a cutover is waited for: two lost packets, which are sent
// again after 1 and 2 seconds.
const handshakeTime = 3500 * time.Millisecond

// handshake is a connection that has not been established yet. It belongs to the socket that got its SYN: its ACK goes
// there even if that comes after a cutover.
type handshake struct {
	local  netip.Addr
	remote netip.AddrPort
}

// handshakes are those that go on at the group's site, for whichever generation.
func (g *group) handshakes() (map[handshake]bool, error) {
	query := inetQuery{
		family:   unix.AF_INET,
		protocol: unix.IPPROTO_TCP,
		states:   1<<unix.BPF_TCP_SYN_RECV | 1<<unix.BPF_TCP_NEW_SYN_RECV,
		port:     g.site.at.Port(),
	}
	if g.site.at.Addr().Is6() {
		query.family = unix.AF_INET6
	}
	found := make(map[handshake]bool)
	err := query.each(func(s inetSocket) {
		if s.inode == 0 {
			found[handshake{s.local, s.remote}] = true
		}
	})
	return found, err
}

// pending counts the handshakes that may belong to a generation which is selected no more: those that were going on at
// the first call after the cutover.
func (g *group) pending() (int, error) {
	if time.Since(g.left) > handshakeTime {
		return 0, nil
	}
	going, err := g.handshakes()
	if err != nil {
		return 0, err
	}
	if g.begun == nil {
		g.begun = going
	}
	for h := range g.begun {
		if !going[h] {
			delete(g.begun, h)
		}
	}
	return len(g.begun), nil
}
