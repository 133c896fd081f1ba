package sockdiag

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is a process that has a socket open.
type Holder struct {
	PID, UID int
	// User is the name of UID, or its number where it has none.
	User string
	// Command is the process's command line.
	Command string
}

func (h Holder) String() string {
	return fmt.Sprintf("pid %d of %s: %s", h.PID, h.User, h.Command)
}

// UserName is for messages: uid may be unknown, and below zero.
func UserName(uid int) string {
	if uid < 0 {
		return "another user"
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "uid " + strconv.Itoa(uid)
	}
	return u.Username
}

// InetHolding finds the sockets that keep others from binding host: uids by inode. The network is tcp or udp, or one of them
// with 4 or 6.
func InetHolding(network string, host netip.AddrPort, v6Only bool) (map[uint64]int, error) {
	query := inetQuery{protocol: unix.IPPROTO_TCP, states: 1 << unix.BPF_TCP_LISTEN, ports: onePort(host.Port())}
	if strings.HasPrefix(network, "udp") {
		// A UDP socket that is bound and not connected is in the state CLOSE.
		query.protocol, query.states = unix.IPPROTO_UDP, 1<<unix.BPF_TCP_CLOSE
	}
	found := make(map[uint64]int)
	for _, query.family = range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := query.each(func(s inetSocket) {
			if s.inode != 0 && Collide(host.Addr(), v6Only, s.local, s.v6Only) {
				found[s.inode] = s.uid
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Collide tells whether sockets of two addresses, at one port, want the same packets; v6Only and only2 are their
// IPV6_V6ONLY.
func Collide(ip netip.Addr, v6Only bool, ip2 netip.Addr, only2 bool) bool {
	ip, ip2 = ip.WithZone("").Unmap(), ip2.WithZone("").Unmap()
	switch {
	case ip.Is4() == ip2.Is4():
		return ip == ip2 || ip.IsUnspecified() || ip2.IsUnspecified()
	case ip.Is4():
		return ip2.IsUnspecified() && !only2
	}
	return ip.IsUnspecified() && !v6Only
}

// unixSocket is one row of /proc/net/unix. An inode of 0 is a connection that nobody has accepted yet.
type unixSocket struct {
	name      string
	inode     uint64
	listening bool
	kind      int
}

const unixAcceptsConnections = 1 << 16 // __SO_ACCEPTCON, include/linux/net.h

// eachUnixSocket calls visit with every unix socket that has a name.
func eachUnixSocket(visit func(unixSocket)) error {
	table, err := os.Open("/proc/net/unix")
	if err != nil {
		return fmt.Errorf("cannot read the kernel's list of unix sockets: %w", err)
	}
	defer table.Close()
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if s, ok := parseUnixSocket(lines.Text()); ok {
			visit(s)
		}
	}
	return lines.Err()
}

// parseUnixSocket reads "address: refcount protocol flags type state inode path"; the path may have spaces.
func parseUnixSocket(line string) (unixSocket, bool) {
	fields := make([]string, 7)
	for i := range fields {
		fields[i], line, _ = strings.Cut(strings.TrimLeft(line, " "), " ")
	}
	flags, err := strconv.ParseUint(fields[3], 16, 32)
	if err != nil || line == "" {
		return unixSocket{}, false
	}
	kind, _ := strconv.ParseInt(fields[4], 16, 32)
	inode, _ := strconv.ParseUint(fields[6], 10, 64)
	return unixSocket{name: line, inode: inode, listening: flags&unixAcceptsConnections != 0, kind: int(kind)}, true
}

// UnixHolding finds the sockets at a path or @name that take connections or datagrams. The uids by inode are -1:
// the kernel's table has none. A path leads to the socket of the file that is there, whatever name that was bound by: a relative one, or
// one that another file has by now. Where the kernel does not tell of files, or there is none, the name decides.
func UnixHolding(name string) (map[uint64]int, error) {
	found := make(map[uint64]int)
	if at, err := unixAtFile(name); err == nil && len(at) > 0 {
		for _, inode := range at {
			found[inode] = -1
		}
		return found, nil
	}
	err := eachUnixSocket(func(s unixSocket) {
		if s.name == name && (s.listening || s.kind == unix.SOCK_DGRAM) {
			found[s.inode] = -1
		}
	})
	return found, err
}

// Holders finds the processes that have one of the sockets, by inode, open, by rising pid. Those that cannot be looked into
// are left out.
func Holders(sockets map[uint64]int) ([]Holder, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var found []Holder
	for _, pid := range pids {
		if HoldsAny(pid, sockets) {
			found = append(found, holder(pid))
		}
	}
	return found, nil
}

func processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// HoldsAny tells whether the process has one of the sockets, by inode, open. One that cannot be looked into has none.
func HoldsAny(pid int, sockets map[uint64]int) bool {
	held := false
	_ = eachDescriptor(pid, func(_ int, inode uint64) bool {
		_, held = sockets[inode]
		return !held
	})
	return held
}

// descriptorsAtOnce is how many a process is asked for at a time: each takes the kernel an entry of its cache.
const descriptorsAtOnce = 256

// eachDescriptor calls visit with every descriptor of the process that is a socket, and the socket's inode, until it
// returns false.
func eachDescriptor(pid int, visit func(fd int, inode uint64) bool) error {
	folder, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	defer folder.Close()
	for {
		names, err := folder.Readdirnames(descriptorsAtOnce)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if more, err := eachSocket(int(folder.Fd()), names, visit); err != nil || !more {
			return err
		}
	}
}

func eachSocket(folder int, names []string, visit func(fd int, inode uint64) bool) (more bool, err error) {
	var link [64]byte
	for _, name := range names {
		n, err := unix.Readlinkat(folder, name, link[:])
		if errors.Is(err, os.ErrPermission) {
			return false, err // root without CAP_SYS_PTRACE may list what it may not look at
		}
		if err != nil {
			continue // closed meanwhile
		}
		inode, ok := socketInode(link[:n])
		if fd, err := strconv.Atoi(name); ok && err == nil && !visit(fd, inode) {
			return false, nil
		}
	}
	return true, nil
}

// socketInode reads "socket:[123]".
func socketInode(link []byte) (uint64, bool) {
	number, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok || len(number) == 0 {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(number[:len(number)-1]), 10, 64)
	return inode, err == nil
}

func holder(pid int) Holder {
	uid := processUID(pid)
	return Holder{PID: pid, UID: uid, User: UserName(uid), Command: command(pid)}
}

// processUID reads the status file: the owner of /proc/PID itself is root for a process that has dropped privileges.
func processUID(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, line, _ := bytes.Cut(status, []byte("\nUid:\t"))
	effective := bytes.Fields(line)
	if len(effective) < 2 {
		return -1
	}
	uid, err := strconv.Atoi(string(effective[1]))
	if err != nil {
		return -1
	}
	return uid
}

const shownCommand = 100

// command makes a process's command line fit for a terminal: it may be long, and other users choose it.
func command(pid int) string {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if len(line) == 0 {
		line, _ = os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	}
	printable := strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, string(line))
	runes := []rune(strings.TrimSpace(printable))
	return string(runes[:min(len(runes), shownCommand)])
}
