package sockdiag

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Listener is a socket whose connections are counted. It need not be this process's: only a TCP socket's queue is read
// from its descriptor.
type Listener interface {
	FD() int
	// Network is tcp, udp, unix or unixgram; tcp and udp may end in 4 or 6.
	Network() string
	// Bound is an IP:port, a path or @name.
	Bound() string
	// Stream tells whether connections are accepted from the socket.
	Stream() bool
}

// connectedStates are those in which an app has its end of a connection open still.
const connectedStates = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_CLOSE_WAIT | 1<<unix.BPF_TCP_FIN_WAIT1 |
	1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING

// Connections counts the connections that the processes have accepted from the listeners and not closed yet, from the
// outside. A connection that several of them have open counts once. A process that has gone has none.
//
// It needs the right to look into the processes: their user's, or root's.
func Connections[L Listener](pids []int, listeners []L) (int, error) {
	open, err := openSockets(pids)
	if err != nil {
		return 0, err
	}
	if len(open) == 0 {
		return 0, nil
	}
	counted := make(map[uint64]bool)
	err = eachConnection(listeners, func(_ int, inode uint64) {
		if _, ok := open[inode]; ok {
			counted[inode] = true
		}
	})
	return len(counted), err
}

// ConnectionsEach counts them for each of the listeners.
func ConnectionsEach[L Listener](pids []int, listeners []L) ([]int, error) {
	open, err := openSockets(pids)
	if err != nil {
		return nil, err
	}
	counts := make([]int, len(listeners))
	err = eachConnection(listeners, func(i int, inode uint64) {
		if _, ok := open[inode]; ok {
			counts[i]++
		}
	})
	return counts, err
}

// UnixConnections counts the connections that the processes have accepted at unix sockets and not closed yet, as
// Connections does. The names are those of the listening sockets in the kernel.
func UnixConnections(pids []int, names map[string]bool) (int, error) {
	open, err := openSockets(pids)
	if err != nil {
		return 0, err
	}
	count := 0
	err = eachUnixSocket(func(s unixSocket) {
		if _, ok := open[s.inode]; ok && names[s.name] && !s.listening {
			count++
		}
	})
	return count, err
}

// openSockets are those of the processes, by inode.
func openSockets(pids []int) (map[uint64]descriptor, error) {
	open := make(map[uint64]descriptor)
	for _, pid := range pids {
		err := eachDescriptor(pid, func(fd int, inode uint64) bool {
			open[inode] = descriptor{pid, fd}
			return true
		})
		if err != nil && !ended(pid) {
			return nil, fmt.Errorf("cannot count the connections of pid %d: %w", pid, err)
		}
	}
	return open, nil
}

// ended tells whether a process has gone, or is a zombie: /proc/PID/fd of those belongs to root, whoever they were
// (task_dump_owner in fs/proc/base.c), and to look into it without being root is EACCES. A pidfd is readable then.
func ended(pid int) bool {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err == unix.ESRCH
	}
	defer unix.Close(pidfd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// eachConnection calls visit with each connection that somebody has accepted, and the number of its listener.
func eachConnection[L Listener](listeners []L, visit func(i int, inode uint64)) error {
	at, names := make(map[inetPlace][]int), make(map[string][]int)
	var addresses []netip.AddrPort
	for i, l := range listeners {
		switch {
		case !l.Stream():
		case isUnix(l):
			names[l.Bound()] = append(names[l.Bound()], i)
		default:
			bound, err := netip.ParseAddrPort(l.Bound())
			if err != nil {
				return fmt.Errorf("cannot count the connections of %s: %w", l.Bound(), err)
			}
			addresses, at[placeOf(bound)] = append(addresses, bound), append(at[placeOf(bound)], i)
		}
	}
	err := eachAccepted(addresses, 0, func(place inetPlace, inode uint64, _ []byte) {
		for _, i := range at[place] {
			visit(i, inode)
		}
	})
	if err != nil || len(names) == 0 {
		return err
	}
	return eachUnixSocket(func(s unixSocket) {
		for _, i := range names[s.name] {
			if !s.listening && s.inode != 0 {
				visit(i, s.inode)
			}
		}
	})
}

func isUnix(l Listener) bool { return strings.HasPrefix(l.Network(), "unix") }

// QueuedEach counts the connections that wait in the queue of each of the listeners to be accepted; a datagram socket has
// none.
func QueuedEach[L Listener](listeners []L) ([]int, error) {
	unixQueues := sync.OnceValues(QueuedUnix)
	counts := make([]int, len(listeners))
	for i, l := range listeners {
		var err error
		if counts[i], err = queued(l, unixQueues); err != nil {
			return nil, fmt.Errorf("cannot read the queue of %s: %w", l.Bound(), err)
		}
	}
	return counts, nil
}

func queued(l Listener, unixQueues func() (map[string]int, error)) (int, error) {
	switch {
	case !l.Stream():
		return 0, nil
	case isUnix(l):
		queues, err := unixQueues()
		return queues[l.Bound()], err
	}
	return QueuedTCP(l.FD())
}

// QueuedTCP counts the connections that wait in the queue of a TCP socket. It reads unacked, which of a listening socket is the length of the accept queue (tcp_get_info in
// net/ipv4/tcp.c). One that was shut down has none.
func QueuedTCP(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != unix.BPF_TCP_LISTEN {
		return 0, err
	}
	return int(info.Unacked), nil
}

// QueuedUnix gives the lengths of the queues of all unix sockets, by their names in the kernel.
func QueuedUnix() (map[string]int, error) {
	queued := make(map[string]int)
	err := eachUnixSocket(func(s unixSocket) {
		if s.inode == 0 {
			queued[s.name]++
		}
	})
	return queued, err
}
