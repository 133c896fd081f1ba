package farewell

import (
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connection is one that a process of the generation has accepted.
type connection struct {
	cookie uint64
	at     netip.AddrPort // where it came in
	// consumed is how many bytes the app had read when the connection was found: as long as there are no more, and it has sent
	// nothing, it knows nothing of what comes.
	consumed  uint64
	asked     bool      // when it was found a request waited for its answer, or to be read
	used      bool      // something came or went since, or in the second before
	told      bool      // it is in the map
	taken     bool      // another map has it, such as that of a grace process that has just ended
	trusted   bool      // its first answer is one, whatever was asked
	open      bool      // in the last look some process had it
	fresh     time.Time // until when a first request is to be expected
	elsewhere bool      // in a network from which this process cannot pass on a request
	answered  bool      // right before the app left it
	held      *hold
}

// traffic is what the kernel knows of a connection at a moment.
type traffic struct {
	open     bool   // for what the app sends
	consumed uint64 // bytes that the app has read
	// asked: the client has spoken last, or something is unread. The kernel's clock ticks every 1 to 10 ms. Of data that
	// came and went in the same tick the app's is taken for the last: most answers are quicker than a tick, and few
	// clients. Where that is wrong, an app that ends without an answer leaves its client waiting for as long as it is kept.
	asked  bool
	recent bool
	fresh  time.Duration // for how long a first request is to be expected
}

// recently is in milliseconds, as TCP counts.
const recently = 1000

func trafficOf(fd int) (traffic, error) {
	info, unread, err := received(fd)
	if err != nil {
		return traffic{}, err // a listener
	}
	ended := info.State == unix.BPF_TCP_CLOSE_WAIT
	consumed := info.Bytes_received - uint64(unread)
	if ended {
		consumed-- // the client's FIN has a number, too
	}
	return traffic{
		open:     ended || info.State == unix.BPF_TCP_ESTABLISHED,
		consumed: consumed,
		asked:    unread > 0 || info.Data_segs_in > 0 && !answered(info),
		fresh:    expected(info),
		recent:   info.Data_segs_in > 0 && min(info.Last_data_recv, info.Last_data_sent) < recently,
	}, nil
}

// expected goes by the time since the handshake: there was no other word yet.
func expected(info *unix.TCPInfo) time.Duration {
	if info.Data_segs_in > 0 || info.Data_segs_out > 0 {
		return 0
	}
	return freshFor - time.Duration(info.Last_data_recv)*time.Millisecond
}

// received looks until nothing came between two looks: what has come and what of it is unread belong together only at one moment.
func received(fd int) (info *unix.TCPInfo, unread int, err error) {
	const looks = 10 // an upload may come all the time: then the app seems to have read more, and it does read
	before := uint64(0)
	for range looks {
		if unread, err = unreadOf(fd); err != nil {
			return nil, 0, err
		}
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.Bytes_received == before {
			return info, unread, err
		}
		before = info.Bytes_received
	}
	return info, unread, nil
}

// unreadOf looks at what the app has not read. It does not ask SIOCINQ: recent kernels (6.18.44) answer 0 for every socket that is in a map
// of sockets, as they count what programs have put there (net/ipv4/tcp_bpf.c).
func unreadOf(fd int) (int, error) {
	const plenty = 1 << 30 // of which nothing is copied
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), 0, plenty, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return 0, nil
	}
	return 0, errno
}

func answered(info *unix.TCPInfo) bool {
	return info.Data_segs_out > 0 && info.Last_data_sent <= info.Last_data_recv // milliseconds ago
}

// justAnswered tells whether the app may have left a connection because its client wants that of it (Connection: close, HTTP/1.0),
// and not because it was told to stop. What was asked before the announcement nobody has seen.
func justAnswered(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.Data_segs_out > 0 && info.Last_data_sent < recently
}

// places are where a generation's listeners are bound.
type places []netip.AddrPort

// of finds the listener that a connection came in by.
func (p places) of(fd int) (at netip.AddrPort, ok bool) {
	local, err := localAddress(fd)
	if err != nil {
		return at, false
	}
	for _, at := range p {
		if at.Port() == local.Port() && (at.Addr().IsUnspecified() || at.Addr().WithZone("").Unmap() == local.Addr()) {
			return at, true
		}
	}
	return at, false
}

func localAddress(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), uint16(name.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

// steered is the filter with which grace keeps new connections from a listener (handoff/steering). Who was accepted
// there has inherited it, and it does nothing to them.
var steered = [...]unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 2, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// filtered tells whether the app has a filter of its own on a connection, the place of which is taken then. One of another
// program's kind (EACCES) is what an earlier farewell has left.
func filtered(fd int) bool {
	var filter [len(steered)]unix.SockFilter
	length := uint32(len(filter)) // in instructions, not in bytes (sk_get_filter in net/core/filter.c)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&filter[0])), uintptr(unsafe.Pointer(&length)), 0)
	switch errno {
	case unix.EACCES:
		return false
	case 0:
		return length > 0 && filter != steered
	}
	return true
}

// networkOf is the number of the network namespace that a socket belongs to, wherever its process is.
func networkOf(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// ownNetwork is that of the sockets which this process makes.
func ownNetwork() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return networkOf(fd)
}

// cookieOf is the number that a socket never shares with another while the machine runs.
func cookieOf(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}
