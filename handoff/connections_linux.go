package handoff

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// connectedStates are those in which an app has its end of a connection open still.
const connectedStates = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_CLOSE_WAIT | 1<<unix.BPF_TCP_FIN_WAIT1 |
	1<<unix.BPF_TCP_FIN_WAIT2 | 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING

// Connections counts the connections that the processes have accepted from the listeners and not closed yet, from the
// outside. A connection that several of them have open counts once. A process that has gone has none.
//
// It needs the right to look into the processes: their user's, or root's.
func Connections(pids []int, listeners []*Listener) (int, error) {
	open, err := openSockets(pids)
	if err != nil {
		return 0, err
	}
	if len(open) == 0 {
		return 0, nil
	}
	counted := make(map[uint64]bool)
	err = eachConnection(listeners, func(_ *Listener, inode uint64) {
		if open[inode] {
			counted[inode] = true
		}
	})
	return len(counted), err
}

// ConnectionsEach counts them for each of the listeners.
func ConnectionsEach(pids []int, listeners []*Listener) ([]int, error) {
	open, err := openSockets(pids)
	if err != nil {
		return nil, err
	}
	found := make(map[*Listener]int)
	err = eachConnection(listeners, func(l *Listener, inode uint64) {
		if open[inode] {
			found[l]++
		}
	})
	counts := make([]int, len(listeners))
	for i, l := range listeners {
		counts[i] = found[l]
	}
	return counts, err
}

func openSockets(pids []int) (map[uint64]bool, error) {
	open := make(map[uint64]bool)
	for _, pid := range pids {
		err := eachOpenSocket(pid, func(inode uint64) { open[inode] = true })
		if err != nil && !ended(pid) {
			return nil, fmt.Errorf("cannot count the connections of pid %d: %w", pid, err)
		}
	}
	return open, nil
}

// ended tells whether a process has gone, or is a zombie: those belong to root, whoever they were (task_dump_owner in
// fs/proc/base.c), and to look into one without being root is EACCES.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return len(state) > 0 && (state[0] == 'Z' || state[0] == 'X')
}

// eachConnection calls visit with each connection to one of the listeners that somebody has accepted.
func eachConnection(listeners []*Listener, visit func(l *Listener, inode uint64)) error {
	at, names := make(map[inetPlace][]*Listener), make(map[string][]*Listener)
	var addresses []netip.AddrPort
	for _, l := range listeners {
		switch {
		case !l.Stream():
		case l.address.unix():
			names[l.bound] = append(names[l.bound], l)
		default:
			bound, err := netip.ParseAddrPort(l.bound)
			if err != nil {
				return fmt.Errorf("cannot count the connections of %s: %w", l.bound, err)
			}
			addresses, at[placeOf(bound)] = append(addresses, bound), append(at[placeOf(bound)], l)
		}
	}
	err := eachAccepted(addresses, 0, func(place inetPlace, inode uint64, _ []byte) {
		for _, l := range at[place] {
			visit(l, inode)
		}
	})
	if err != nil || len(names) == 0 {
		return err
	}
	return eachUnixSocket(func(s unixSocket) {
		for _, l := range names[s.name] {
			if !s.listening && s.inode != 0 {
				visit(l, s.inode)
			}
		}
	})
}

// Queued counts the connections that wait in a stream listener's queue to be accepted; a datagram socket has none.
func Queued(l *Listener) (int, error) {
	counts, err := QueuedEach([]*Listener{l})
	if err != nil {
		return 0, err
	}
	return counts[0], nil
}

// QueuedEach counts them for each of the listeners.
func QueuedEach(listeners []*Listener) ([]int, error) {
	unixQueues := sync.OnceValues(queuedUnix)
	counts := make([]int, len(listeners))
	for i, l := range listeners {
		var err error
		if counts[i], err = l.queued(unixQueues); err != nil {
			return nil, fmt.Errorf("cannot read the queue of %s: %w", l.bound, err)
		}
	}
	return counts, nil
}

func (l *Listener) queued(unixQueues func() (map[string]int, error)) (int, error) {
	switch {
	case !l.Stream():
		return 0, nil
	case l.address.unix():
		queues, err := unixQueues()
		return queues[l.bound], err
	}
	return queuedTCP(l.fd)
}

// queuedTCP reads unacked, which of a listening socket is the length of the accept queue (tcp_get_info in
// net/ipv4/tcp.c). One that was shut down has none.
func queuedTCP(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != unix.BPF_TCP_LISTEN {
		return 0, err
	}
	return int(info.Unacked), nil
}

// queuedUnix gives the lengths of all queues, by the name of the socket.
func queuedUnix() (map[string]int, error) {
	queued := make(map[string]int)
	err := eachUnixSocket(func(s unixSocket) {
		if s.inode == 0 {
			queued[s.name]++
		}
	})
	return queued, err
}
