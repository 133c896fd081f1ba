package handoff

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"

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
	for _, l := range listeners {
		if !l.Stream() {
			continue
		}
		err := l.eachAccepted(func(inode uint64) {
			if open[inode] {
				counted[inode] = true
			}
		})
		if err != nil {
			return 0, err
		}
	}
	return len(counted), nil
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

// eachAccepted calls visit with every connection to the listener's address that somebody has accepted.
func (l *Listener) eachAccepted(visit func(inode uint64)) error {
	if l.address.unix() {
		return eachUnixSocket(func(s unixSocket) {
			if s.name == l.bound && !s.listening && s.inode != 0 {
				visit(s.inode)
			}
		})
	}
	at, err := netip.ParseAddrPort(l.bound)
	if err != nil {
		return fmt.Errorf("cannot count the connections of %s: %w", l.bound, err)
	}
	query := inetQuery{family: unix.AF_INET, protocol: unix.IPPROTO_TCP, states: connectedStates, port: at.Port()}
	if at.Addr().Is6() {
		query.family = unix.AF_INET6
	}
	ip := at.Addr().WithZone("").Unmap()
	return query.each(func(s inetSocket) {
		if s.inode != 0 && (ip.IsUnspecified() || ip == s.local) {
			visit(s.inode)
		}
	})
}

// Queued counts the connections that wait in a stream listener's queue to be accepted; a datagram socket has none.
func Queued(l *Listener) (int, error) {
	switch {
	case !l.Stream():
		return 0, nil
	case l.address.unix():
		return queuedUnix(l.bound)
	}
	n, err := queuedTCP(l.fd)
	if err != nil {
		return 0, fmt.Errorf("cannot read the queue of %s: %w", l.bound, err)
	}
	return n, nil
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

func queuedUnix(name string) (int, error) {
	queued := 0
	err := eachUnixSocket(func(s unixSocket) {
		if s.name == name && s.inode == 0 {
			queued++
		}
	})
	return queued, err
}
