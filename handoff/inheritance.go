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

	"github.com/gracerun/grace/handoff/internal/inherited"
	"golang.org/x/sys/unix"
)

// inheritance is the set of sockets that a supervisor left to this process. Each is given out once.
//
// It owns the descriptors that nobody has asked for yet, and keeps them open as long as the process lives. Its methods
// may be called from several goroutines.
type inheritance struct {
	mu      sync.Mutex
	sockets []inherited.Socket
	parent  *os.File // tableflip's ready pipe, until it was written to
	refused error    // why what a variable says cannot be true, for those who find no socket
}

// inherit takes the sockets that the variables of any dialect tell of, and sets their descriptors close-on-exec.
// What is no socket, or not inherited, is left alone: variables outlive the processes they were meant for. A second
// inheritance of the same process finds nothing.
func inherit(getenv func(string) string) *inheritance {
	i := &inheritance{}
	i.addTableflip(getenv) // before others name the same sockets, by which it knows that it was meant
	for _, read := range []func(func(string) string) ([]inherited.Socket, error){
		inherited.FromSystemd, fromServerStarter, fromEinhorn, fromNginx, fromFPM,
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
func (i *inheritance) add(s inherited.Socket) bool {
	if !s.Inherited() {
		return false
	}
	unix.CloseOnExec(s.FD)
	i.sockets = append(i.sockets, s)
	return true
}

func (i *inheritance) listen(network, addr string) (net.Listener, error) {
	if network == inherited.Network {
		s, err := i.numbered(addr, true)
		if err != nil {
			return nil, err
		}
		return listenerOf(s)
	}
	if s, ok := i.claim(isAt(network, addr)); ok {
		return listenerOf(s)
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
	if network == inherited.Network {
		s, err := i.numbered(addr, false)
		if err != nil {
			return nil, err
		}
		return packetConnOf(s)
	}
	if s, ok := i.claim(isAt(network, addr)); ok {
		return packetConnOf(s)
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
		return listenerOf(s)
	}
	return i.listen(network, addr)
}

func (i *inheritance) namedPacket(name, network, addr string) (net.PacketConn, error) {
	if s, ok := i.claim(isNamed(name, false)); ok {
		return packetConnOf(s)
	}
	return i.listenPacket(network, addr)
}

// numbered gives the socket that the supervisor left as the descriptor of that number, whether or not a dialect tells
// of it.
func (i *inheritance) numbered(addr string, stream bool) (inherited.Socket, error) {
	number, ok := descriptorNumber(addr)
	if !ok {
		return inherited.Socket{}, fmt.Errorf("cannot listen on descriptor %q: not the number of a descriptor", addr)
	}
	i.mu.Lock()
	i.add(inherited.Socket{Number: number, FD: number})
	i.mu.Unlock()
	s, ok := i.claim(func(s inherited.Socket) bool { return s.Number == number && s.Stream() == stream })
	if !ok {
		return inherited.Socket{}, fmt.Errorf("cannot listen on descriptor %d: the process has inherited no such socket "+
			"there, or has used it already (grace puts the number in place of {fd})", number)
	}
	return s, nil
}

func (i *inheritance) claim(fits func(inherited.Socket) bool) (inherited.Socket, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := slices.IndexFunc(i.sockets, fits)
	if n < 0 {
		return inherited.Socket{}, false
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
	return fmt.Errorf("%w; these inherited sockets were not requested by address or name: %s", err, strings.Join(left, ", "))
}

// listenerOf passes the descriptor on to a net.Listener, which leaves a unix path alone when it is closed. On the way
// nothing may switch a socket back to blocking, not for a moment: all generations share the flag, and the accept of
// one that serves would hang. os.NewFile leaves it as it is, and net.FileListener sets it to non-blocking.
func listenerOf(s inherited.Socket) (net.Listener, error) {
	f := os.NewFile(uintptr(s.FD), s.String())
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the inherited socket %s: %w", s, err)
	}
	return ln, nil
}

func packetConnOf(s inherited.Socket) (net.PacketConn, error) {
	f := os.NewFile(uintptr(s.FD), s.String())
	defer f.Close()
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("cannot receive on the inherited socket %s: %w", s, err)
	}
	return conn, nil
}

func isNamed(name string, stream bool) func(inherited.Socket) bool {
	return func(s inherited.Socket) bool { return name != "" && s.Name == name && s.Stream() == stream }
}

// isAt tells whether a socket is where net.Listen(network, addr) would have bound its own.
func isAt(network, addr string) func(inherited.Socket) bool {
	host := sync.OnceValue(func() netip.AddrPort { return resolve(network, addr) })
	base := strings.TrimRight(network, "46")
	return func(s inherited.Socket) bool {
		switch {
		case s.Network != base:
			return false
		case !s.Host.IsValid():
			return samePath(s.Path, addr)
		}
		return sameHost(network, s.Host, host())
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

// https://metacpan.org/pod/Server::Starter
func fromServerStarter(getenv func(string) string) ([]inherited.Socket, error) {
	return lastNumbers(strings.SplitSeq(getenv("SERVER_STARTER_PORT"), ";")), nil
}

// fpm_sockets_init_main in sapi/fpm/fpm/fpm_sockets.c of php-src
func fromFPM(getenv func(string) string) ([]inherited.Socket, error) {
	return lastNumbers(strings.SplitSeq(getenv("FPM_SOCKETS"), ",")), nil
}

// ngx_add_inherited_sockets in src/core/nginx.c of nginx
func fromNginx(getenv func(string) string) ([]inherited.Socket, error) {
	return lastNumbers(strings.FieldsFuncSeq(getenv("NGINX"), func(r rune) bool { return r == ';' || r == ':' })), nil
}

// https://github.com/contribsys/einhorn: a worker trusts the variables only if its parent wrote them.
func fromEinhorn(getenv func(string) string) ([]inherited.Socket, error) {
	if getenv("EINHORN_MASTER_PID") != strconv.Itoa(os.Getppid()) {
		return nil, nil
	}
	count, err := inherited.Announced(getenv, "EINHORN_FD_COUNT")
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

// addStdin takes descriptor 0 if it is a socket that waits for anybody: inetd(8) gives such a one to its "wait" services
// and systemd by StandardInput=socket; that of a "nowait" service is a connection. Its place is taken by /dev/null, as
// grace leaves it to other apps: to close it would give the number 0 to the next file that is opened.
func (i *inheritance) addStdin() {
	s := inherited.Socket{Number: 0, FD: 0}
	if !s.Inherited() {
		return
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(null)
	if s.FD, err = unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, inherited.FirstFile); err != nil {
		return
	}
	known := slices.ContainsFunc(i.sockets, func(other inherited.Socket) bool { return other.Inode == s.Inode })
	if unix.Dup2(null, 0) != nil || known {
		unix.Close(s.FD)
		return
	}
	i.sockets = append(i.sockets, s)
}

// lastNumbers reads descriptors from words like 4 and 127.0.0.1:80=4, and keeps those that are open.
func lastNumbers(words iter.Seq[string]) []inherited.Socket {
	var sockets []inherited.Socket
	for word := range words {
		if fd, ok := descriptorNumber(word[strings.LastIndex(word, "=")+1:]); ok && inherited.IsOpen(fd) {
			sockets = append(sockets, inherited.Socket{Number: fd, FD: fd})
		}
	}
	return sockets
}

// descriptorNumber takes no number that the kernel, which reads 32 bits of it, would take for another one.
func descriptorNumber(text string) (int, bool) {
	number, err := strconv.ParseUint(text, 10, 31)
	return int(number), err == nil
}
