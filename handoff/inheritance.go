package handoff

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// inheritance is the set of sockets that a supervisor left to this process. Each is given out once.
//
// It owns the descriptors that nobody has asked for yet, and keeps them open as long as the process lives. Its methods
// may be called from several goroutines.
type inheritance struct {
	mu      sync.Mutex
	sockets []inheritedSocket
	parent  *os.File // tableflip's ready pipe, until it was written to
	refused error    // why what a variable says cannot be true, for those who find no socket
}

// inherit takes the sockets that the variables of any dialect tell of, and sets their descriptors close-on-exec.
// What is no socket, or not inherited, is left alone: variables outlive the processes they were meant for. A second
// inheritance of the same process finds nothing.
func inherit(getenv func(string) string) *inheritance {
	i := &inheritance{}
	i.addTableflip(getenv) // before others name the same sockets, by which it knows that it was meant
	for _, read := range []func(func(string) string) ([]inheritedSocket, error){
		fromSystemd, fromServerStarter, fromEinhorn, fromNginx, fromFPM,
	} {
		sockets, err := read(getenv)
		for _, s := range sockets {
			i.add(s)
		}
		i.refused = errors.Join(i.refused, err)
	}
	i.addStdin()
	return i
}

// add takes a socket, unless it is none of a supervisor's, or was taken before.
func (i *inheritance) add(s inheritedSocket) bool {
	if !s.inherited() {
		return false
	}
	unix.CloseOnExec(s.fd)
	i.sockets = append(i.sockets, s)
	return true
}

func (i *inheritance) listen(network, addr string) (net.Listener, error) {
	if network == descriptor {
		s, err := i.numbered(addr, true)
		if err != nil {
			return nil, err
		}
		return s.listener()
	}
	if s, ok := i.claim(isAt(network, addr)); ok {
		return s.listener()
	}
	if i.refused != nil {
		return nil, i.refused
	}
	var fresh net.ListenConfig
	// Multipath sockets take no steering program: SO_ATTACH_REUSEPORT_CBPF fails with EOPNOTSUPP.
	fresh.SetMultipathTCP(false)
	ln, err := fresh.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, i.explain(err)
	}
	return ln, nil
}

func (i *inheritance) listenPacket(network, addr string) (net.PacketConn, error) {
	if network == descriptor {
		s, err := i.numbered(addr, false)
		if err != nil {
			return nil, err
		}
		return s.packetConn()
	}
	if s, ok := i.claim(isAt(network, addr)); ok {
		return s.packetConn()
	}
	if i.refused != nil {
		return nil, i.refused
	}
	conn, err := net.ListenPacket(network, addr)
	if err != nil {
		return nil, i.explain(err)
	}
	return conn, nil
}

func (i *inheritance) named(name, network, addr string) (net.Listener, error) {
	if s, ok := i.claim(isNamed(name, true)); ok {
		return s.listener()
	}
	return i.listen(network, addr)
}

func (i *inheritance) namedPacket(name, network, addr string) (net.PacketConn, error) {
	if s, ok := i.claim(isNamed(name, false)); ok {
		return s.packetConn()
	}
	return i.listenPacket(network, addr)
}

// descriptor is the network of which the addresses are the numbers of inherited sockets.
const descriptor = "fd"

// numbered gives the socket that the supervisor left as the descriptor of that number, whether or not a dialect tells
// of it.
func (i *inheritance) numbered(addr string, stream bool) (inheritedSocket, error) {
	number, ok := descriptorNumber(addr)
	if !ok {
		return inheritedSocket{}, fmt.Errorf("cannot listen on descriptor %q: not the number of a descriptor", addr)
	}
	i.mu.Lock()
	i.add(inheritedSocket{number: number, fd: number})
	i.mu.Unlock()
	s, ok := i.claim(func(s inheritedSocket) bool { return s.number == number && s.stream() == stream })
	if !ok {
		return inheritedSocket{}, fmt.Errorf("cannot listen on descriptor %d: the process has inherited no such socket "+
			"there, or has used it already (grace puts the number in place of {fd})", number)
	}
	return s, nil
}

func (i *inheritance) claim(fits func(inheritedSocket) bool) (inheritedSocket, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := slices.IndexFunc(i.sockets, fits)
	if n < 0 {
		return inheritedSocket{}, false
	}
	s := i.sockets[n]
	i.sockets = slices.Delete(i.sockets, n, n+1)
	return s, true
}

// explain names the sockets that wait for an owner when an address is taken: the supervisor then has most likely
// bound another spelling of it than the app asks for.
func (i *inheritance) explain(err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !errors.Is(err, unix.EADDRINUSE) || len(i.sockets) == 0 {
		return err
	}
	left := make([]string, len(i.sockets))
	for n, s := range i.sockets {
		left[n] = s.String()
	}
	return fmt.Errorf("%w; inherited, but not asked for by address or name: %s", err, strings.Join(left, ", "))
}

// inheritedSocket is one socket of the supervisor's. Its readers know the number and perhaps a name, inspect the rest.
type inheritedSocket struct {
	number  int // by which the supervisor knows it
	fd      int
	inode   uint64
	name    string
	network string // tcp, udp, unix, unixgram or unixpacket
	host    netip.AddrPort
	path    string
}

func (s inheritedSocket) String() string {
	addr := s.path
	if addr == "" {
		addr = s.host.String()
	}
	if s.name == "" {
		return s.network + "://" + addr
	}
	return s.name + "=" + s.network + "://" + addr
}

func (s inheritedSocket) stream() bool { return s.network != "udp" && s.network != "unixgram" }

// inherited tells whether the descriptor is a supervisor's, and one that an app can use. A descriptor with FD_CLOEXEC was
// opened here, since no exec would have left it open: its number stands in a variable that was meant for another
// process, or it has an owner already.
func (s *inheritedSocket) inherited() bool {
	flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0 && s.inspect() && s.awaitsAnybody()
}

// inspect learns what the socket is, and tells whether the package knows its kind.
func (s *inheritedSocket) inspect() bool {
	kind, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return false
	}
	switch name := name.(type) {
	case *unix.SockaddrUnix:
		s.path = name.Name
		s.network = map[int]string{
			unix.SOCK_STREAM: "unix", unix.SOCK_DGRAM: "unixgram", unix.SOCK_SEQPACKET: "unixpacket",
		}[kind]
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		s.host = inetAddrPort(name)
		s.network = map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]
	}
	var stat unix.Stat_t
	err = unix.Fstat(s.fd, &stat)
	s.inode = uint64(stat.Ino)
	return err == nil && s.network != ""
}

// awaitsAnybody is false for a connection, and for a socket that nobody can find.
func (s *inheritedSocket) awaitsAnybody() bool {
	if s.stream() {
		listening, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return err == nil && listening != 0
	}
	_, err := unix.Getpeername(s.fd)
	return err == unix.ENOTCONN && (s.path != "" || s.host.Port() != 0)
}

// listener passes the descriptor on to a net.Listener, which leaves a unix path alone when it is closed. On the way
// nothing may switch a socket back to blocking, not for a moment: all generations share the flag, and the accept of
// one that serves would hang. os.NewFile leaves it as it is, and net.FileListener sets it to non-blocking.
func (s inheritedSocket) listener() (net.Listener, error) {
	f := os.NewFile(uintptr(s.fd), s.String())
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the inherited socket %s: %w", s, err)
	}
	return ln, nil
}

func (s inheritedSocket) packetConn() (net.PacketConn, error) {
	f := os.NewFile(uintptr(s.fd), s.String())
	defer f.Close()
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("cannot receive on the inherited socket %s: %w", s, err)
	}
	return conn, nil
}

func isNamed(name string, stream bool) func(inheritedSocket) bool {
	return func(s inheritedSocket) bool { return name != "" && s.name == name && s.stream() == stream }
}

// isAt tells whether a socket is where net.Listen(network, addr) would have bound its own.
func isAt(network, addr string) func(inheritedSocket) bool {
	host := sync.OnceValue(func() netip.AddrPort { return resolve(network, addr) })
	base := strings.TrimRight(network, "46")
	return func(s inheritedSocket) bool {
		switch {
		case s.network != base:
			return false
		case !s.host.IsValid():
			return samePath(s.path, addr)
		}
		return sameHost(network, s.host, host())
	}
}

// resolve gives the zero value for what is no address: then net.Listen will say why.
func resolve(network, addr string) netip.AddrPort {
	if strings.HasPrefix(network, "udp") {
		if a, err := net.ResolveUDPAddr(network, addr); err == nil {
			return a.AddrPort()
		}
		return netip.AddrPort{}
	}
	if a, err := net.ResolveTCPAddr(network, addr); err == nil {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// sameHost compares as net.Listen binds: without a family in the network, 0.0.0.0, [::] and no host are all the same.
// Port 0 asks for a new port, so it is never the same.
func sameHost(network string, bound, want netip.AddrPort) bool {
	has, asked := bound.Addr().Unmap(), want.Addr().Unmap()
	switch {
	case want.Port() == 0 || want.Port() != bound.Port():
		return false
	case strings.HasSuffix(network, "4") && !has.Is4(), strings.HasSuffix(network, "6") && has.Is4():
		return false
	case !asked.IsValid() || asked.IsUnspecified():
		return has.IsUnspecified()
	}
	return has == asked
}

// samePath lets /var/run/x be /run/x, and a relative path the absolute one that was bound.
func samePath(bound, want string) bool {
	if bound == want {
		return want != ""
	}
	if strings.HasPrefix(bound, "@") || strings.HasPrefix(want, "@") {
		return false
	}
	there, err := os.Stat(bound)
	if err != nil {
		return false
	}
	asked, err := os.Stat(want)
	return err == nil && os.SameFile(there, asked)
}

// https://www.freedesktop.org/software/systemd/man/sd_listen_fds.html
func fromSystemd(getenv func(string) string) ([]inheritedSocket, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	count, err := announced(getenv, "LISTEN_FDS")
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	var sockets []inheritedSocket
	for n := range count {
		s := inheritedSocket{number: firstFile + n, fd: firstFile + n}
		if n < len(names) {
			s.name = names[n]
		}
		if isOpen(s.fd) {
			sockets = append(sockets, s)
		}
	}
	return sockets, err
}

// https://metacpan.org/pod/Server::Starter
func fromServerStarter(getenv func(string) string) ([]inheritedSocket, error) {
	return lastNumbers(strings.SplitSeq(getenv("SERVER_STARTER_PORT"), ";")), nil
}

// fpm_sockets_init_main in sapi/fpm/fpm/fpm_sockets.c of php-src
func fromFPM(getenv func(string) string) ([]inheritedSocket, error) {
	return lastNumbers(strings.SplitSeq(getenv("FPM_SOCKETS"), ",")), nil
}

// ngx_add_inherited_sockets in src/core/nginx.c of nginx
func fromNginx(getenv func(string) string) ([]inheritedSocket, error) {
	return lastNumbers(strings.FieldsFuncSeq(getenv("NGINX"), func(r rune) bool { return r == ';' || r == ':' })), nil
}

// https://github.com/contribsys/einhorn: a worker trusts the variables only if its parent wrote them.
func fromEinhorn(getenv func(string) string) ([]inheritedSocket, error) {
	if getenv("EINHORN_MASTER_PID") != strconv.Itoa(os.Getppid()) {
		return nil, nil
	}
	count, err := announced(getenv, "EINHORN_FD_COUNT")
	return lastNumbers(func(yield func(string) bool) {
		for n := range count {
			// The variables are numbered without a gap, so the first one that is missing is the end of them.
			number := getenv("EINHORN_FD_" + strconv.Itoa(n))
			if number == "" || !yield(number) {
				return
			}
		}
	}), err
}

// mostDescriptors is what Linux allows a process unless sysctl fs.nr_open says otherwise.
const mostDescriptors = 1 << 20

// announced is how many descriptors a variable tells of, or 0 if it has no number. It refuses more than a process can
// have open, before anything is done for each of them.
func announced(getenv func(string) string, variable string) (int, error) {
	count, err := strconv.Atoi(getenv(variable))
	if errors.Is(err, strconv.ErrSyntax) || count < 0 {
		return 0, nil
	}
	if most := descriptorLimit(); err != nil || count > most {
		return 0, fmt.Errorf("cannot take the sockets that %s=%.20s announces: this process can have no more than %d "+
			"descriptors open", variable, getenv(variable), most)
	}
	return count, nil
}

// descriptorLimit is the hard limit, which Go's runtime makes the soft one. In containers it may be a thousand times
// what anybody uses.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostDescriptors
	}
	return int(min(uint64(limit.Max), mostDescriptors))
}

// addStdin takes descriptor 0 if it is a socket that waits for anybody: inetd(8) gives such a one to its "wait" services
// and systemd by StandardInput=socket; that of a "nowait" service is a connection. Its place is taken by /dev/null, as
// grace leaves it to other apps: to close it would give the number 0 to the next file that is opened.
func (i *inheritance) addStdin() {
	s := inheritedSocket{number: 0, fd: 0}
	if !s.inherited() {
		return
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(null)
	if s.fd, err = unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, firstFile); err != nil {
		return
	}
	known := slices.ContainsFunc(i.sockets, func(other inheritedSocket) bool { return other.inode == s.inode })
	if unix.Dup2(null, 0) != nil || known {
		unix.Close(s.fd)
		return
	}
	i.sockets = append(i.sockets, s)
}

// lastNumbers reads descriptors from words like 4 and 127.0.0.1:80=4, and keeps those that are open.
func lastNumbers(words iter.Seq[string]) []inheritedSocket {
	var sockets []inheritedSocket
	for word := range words {
		if fd, ok := descriptorNumber(word[strings.LastIndex(word, "=")+1:]); ok && isOpen(fd) {
			sockets = append(sockets, inheritedSocket{number: fd, fd: fd})
		}
	}
	return sockets
}

// descriptorNumber takes no number that the kernel, which reads 32 bits of it, would take for another one.
func descriptorNumber(text string) (int, bool) {
	number, err := strconv.ParseUint(text, 10, 31)
	return int(number), err == nil
}
