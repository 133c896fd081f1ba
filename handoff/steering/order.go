package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/synfilter"
	"golang.org/x/sys/unix"
)

// reorder finds the kernel's numbers of a group's sockets after a predecessor was killed: each socket that has ended with it, or
// since, has moved the last one into its place, and nobody knows in which order. To each number a connection is begun that all
// sockets drop, and which of them has counted that tells. No app sees anything of it, and other connections go where they went.
func (g *group) reorder() error {
	if len(g.Members) < 2 || slices.ContainsFunc(g.Members, (*memberSocket).filters) {
		return nil
	}
	p, err := newOrderProbe(g)
	if err != nil {
		return fmt.Errorf("cannot find out the order of the sockets at %s: %w", g.Key.At, err)
	}
	defer p.close()
	var found []*memberSocket
	for number := range g.Members {
		s, err := p.at(number)
		if err != nil {
			return fmt.Errorf("cannot find out the order of the sockets at %s: %w", g.Key.At, err)
		}
		if s == nil || slices.Contains(found, s) {
			return fmt.Errorf("cannot find out the order of the sockets at %s: number %d is unknown", g.Key.At, number)
		}
		found = append(found, s)
	}
	g.Members = found
	return nil
}

// filters tells whether the app has set a filter, which grace leaves alone.
func (s *memberSocket) filters() bool { return synfilter.Of(s.FD) == synfilter.Foreign }

// orderProbe begins connections from one port.
type orderProbe struct {
	group    *group
	to       netip.AddrPort
	from     *boundPort
	filtered []*memberSocket
}

// boundPort is kept by a socket that connects to nobody.
type boundPort struct {
	fd   int
	port uint16
}

func newOrderProbe(g *group) (*orderProbe, error) {
	to := reachable(g.Key.At)
	from, err := openPort(to.Addr(), 0)
	if err != nil {
		return nil, err
	}
	p := &orderProbe{group: g, to: to, from: from}
	for _, s := range g.Members {
		if synfilter.Of(s.FD) != synfilter.None {
			continue // it drops all newcomers
		}
		if err := dropFrom(s.FD, from.port); err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.filtered = append(p.filtered, s)
	}
	return p, nil
}

// reachable is an address at which this machine reaches what listens at one.
func reachable(at netip.AddrPort) netip.AddrPort {
	switch {
	case !at.Addr().IsUnspecified():
		return at
	case at.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
}

// openPort binds a port that others of this process may share.
func openPort(like netip.Addr, port uint16) (*boundPort, error) {
	fd, err := unix.Socket(inetaddr.Family(like), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	var any unix.Sockaddr = &unix.SockaddrInet6{Port: int(port)}
	if like.Is4() {
		any = &unix.SockaddrInet4{Port: int(port)}
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, any)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &boundPort{fd, inetaddr.Of(name).Port()}, nil
}

// close has the sockets and the program as they were.
func (p *orderProbe) close() error {
	errs := []error{unix.Close(p.from.fd), p.attach(nil)}
	for _, s := range p.filtered {
		errs = append(errs, unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	}
	return errors.Join(errs...)
}

// attach leaves to the program what it does with all connections but the probe's: its numbers may be too high by now.
func (p *orderProbe) attach(targets map[uint16][]int) error {
	return p.group.attachBy(p.group.Members[0].FD, p.group.was, targets)
}

// dropFrom keeps what comes from a port from a socket.
func dropFrom(fd int, port uint16) error {
	program := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 0}, // the source port begins the TCP header
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(port), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// orderTries is for sockets that drop others' connections at the same time.
const orderTries = 10

// at gives the socket with this number, nil if none of the group counts the connection.
func (p *orderProbe) at(number int) (*memberSocket, error) {
	if err := p.attach(map[uint16][]int{p.from.port: {number}}); err != nil {
		return nil, err
	}
	candidates := p.group.Members
	for range orderTries {
		counted, err := p.count()
		if err != nil {
			return nil, err
		}
		candidates = slices.DeleteFunc(slices.Clone(candidates), func(s *memberSocket) bool { return !slices.Contains(counted, s) })
		if len(candidates) == 1 {
			return candidates[0], nil
		}
		if len(candidates) == 0 {
			candidates = p.group.Members
		}
	}
	return nil, nil
}

// count begins a connection, and gives the sockets that have dropped one meanwhile.
func (p *orderProbe) count() (counted []*memberSocket, err error) {
	before := make([]uint32, len(p.group.Members))
	for i, s := range p.group.Members {
		if before[i], err = drops(s.FD); err != nil {
			return nil, err
		}
	}
	if err := p.knock(); err != nil {
		return nil, err
	}
	for i, s := range p.group.Members {
		now, err := drops(s.FD)
		if err != nil {
			return nil, err
		}
		if now != before[i] {
			counted = append(counted, s)
		}
	}
	return counted, nil
}

func (p *orderProbe) knock() error {
	from, err := openPort(p.to.Addr(), p.from.port)
	if err != nil {
		return err
	}
	defer unix.Close(from.fd)
	to, err := inetaddr.Sockaddr(p.to)
	if err != nil {
		return err
	}
	if err := unix.Connect(from.fd, to); err != nil && err != unix.EINPROGRESS {
		return err
	}
	return nil
}

// dropsIndex is where SO_MEMINFO has how many packets a socket has dropped (SK_MEMINFO_DROPS in linux/sock_diag.h).
const dropsIndex = 8

func drops(fd int) (uint32, error) {
	var memory [dropsIndex + 1]uint32
	size := uint32(unsafe.Sizeof(memory))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&memory[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return memory[dropsIndex], nil
}
