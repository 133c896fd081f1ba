// Package inherited knows the sockets that a process finds when it begins: an app's from grace, and grace's own from its
// service manager.
package inherited

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"golang.org/x/sys/unix"
)

// FirstFile is the number of the first descriptor behind stdin, stdout and stderr.
const FirstFile = 3

// Network is that of addresses which are the numbers of inherited sockets.
const Network = "fd"

// Socket is one socket of the supervisor's. Its readers know the number and perhaps a name, inspect the rest.
type Socket struct {
	Number  int // by which the supervisor knows it
	FD      int
	Inode   uint64
	Name    string
	Network string // tcp, udp, unix, unixgram or unixpacket
	Host    netip.AddrPort
	Path    string
}

func (s Socket) String() string {
	addr := s.Path
	if addr == "" {
		addr = s.Host.String()
	}
	if s.Name == "" {
		return s.Network + "://" + addr
	}
	return s.Name + "=" + s.Network + "://" + addr
}

// Stream tells whether connections are accepted from the socket.
func (s Socket) Stream() bool { return s.Network != "udp" && s.Network != "unixgram" }

// Inherited tells whether the descriptor is a supervisor's, and one that an app can use. A descriptor with FD_CLOEXEC was
// opened here, since no exec would have left it open: its number stands in a variable that was meant for another
// process, or it has an owner already.
func (s *Socket) Inherited() bool {
	flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0 && s.Inspect() && s.awaitsAnybody()
}

// Inspect learns what the socket is, and tells whether the package knows its kind.
func (s *Socket) Inspect() bool {
	kind, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false
	}
	name, err := unix.Getsockname(s.FD)
	if err != nil {
		return false
	}
	switch name := name.(type) {
	case *unix.SockaddrUnix:
		s.Path = name.Name
		s.Network = map[int]string{
			unix.SOCK_STREAM: "unix", unix.SOCK_DGRAM: "unixgram", unix.SOCK_SEQPACKET: "unixpacket",
		}[kind]
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		s.Host = inetaddr.Of(name)
		s.Network = map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]
	}
	var stat unix.Stat_t
	err = unix.Fstat(s.FD, &stat)
	s.Inode = uint64(stat.Ino)
	return err == nil && s.Network != ""
}

// awaitsAnybody is false for a connection, and for a socket that nobody can find.
func (s *Socket) awaitsAnybody() bool {
	if s.Stream() {
		listening, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return err == nil && listening != 0
	}
	_, err := unix.Getpeername(s.FD)
	return err == unix.ENOTCONN && (s.Path != "" || s.Host.Port() != 0)
}

// FromSystemd reads the variables of the systemd dialect, see
// https://www.freedesktop.org/software/systemd/man/sd_listen_fds.html
func FromSystemd(getenv func(string) string) ([]Socket, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	count, err := Announced(getenv, "LISTEN_FDS")
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	var sockets []Socket
	for n := range count {
		s := Socket{Number: FirstFile + n, FD: FirstFile + n}
		if n < len(names) {
			s.Name = names[n]
		}
		if IsOpen(s.FD) {
			sockets = append(sockets, s)
		}
	}
	return sockets, err
}

// mostDescriptors is what Linux allows a process unless sysctl fs.nr_open says otherwise.
const mostDescriptors = 1 << 20

// Announced is how many descriptors a variable tells of, or 0 if it has no number. It refuses more than a process can
// have open, before anything is done for each of them.
func Announced(getenv func(string) string, variable string) (int, error) {
	count, err := strconv.Atoi(getenv(variable))
	if errors.Is(err, strconv.ErrSyntax) || count < 0 {
		return 0, nil
	}
	if most := DescriptorLimit(); err != nil || count > most {
		return 0, fmt.Errorf("cannot take the sockets that %s=%.20s announces: this process can have no more than %d "+
			"descriptors open", variable, getenv(variable), most)
	}
	return count, nil
}

// DescriptorLimit is the hard limit, which Go's runtime makes the soft one. In containers it may be a thousand times
// what anybody uses.
func DescriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostDescriptors
	}
	return int(min(uint64(limit.Max), mostDescriptors))
}

// IsOpen tells whether the process has the descriptor open.
func IsOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// Addr is the path or the IP:port.
func (s *Socket) Addr() string {
	if s.Path != "" {
		return s.Path
	}
	return s.Host.String()
}
