package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inetName is how the kernel finds one socket, and no other: its addresses and its cookie (struct inet_diag_sockid).
type inetName struct {
	family uint8
	id     [diagIDSize]byte
}

// Where struct inet_diag_sockid has things, and inet_diag_msg and inet_diag_req_v2 have it.
const (
	diagIDSize   = 48
	idRemotePort = 2
	idLocal      = 4
	idRemote     = 20
	idInterface  = 36
	idCookie     = 40

	diagIDInMessage = 4
)

// nameIn reads it from a message of the kernel's.
func nameIn(message []byte) inetName {
	return inetName{message[0], [diagIDSize]byte(message[diagIDInMessage:])}
}

// errNoConnection says that a socket is not a TCP connection, or none any more.
var errNoConnection = errors.New("not a TCP connection")

// nameOf asks the socket itself.
func nameOf(fd int) (inetName, error) {
	local, err := rawName(unix.SYS_GETSOCKNAME, fd)
	if err != nil {
		return inetName{}, err
	}
	name, first, size := inetName{family: uint8(binary.NativeEndian.Uint16(local[:]))}, 8, 16 // struct sockaddr_in6
	switch name.family {
	case unix.AF_INET:
		first, size = 4, 4
	case unix.AF_INET6:
	default:
		return inetName{}, errNoConnection
	}
	remote, err := rawName(unix.SYS_GETPEERNAME, fd)
	if err != nil {
		return inetName{}, errNoConnection // it listens, or was reset
	}
	copy(name.id[:], local[2:4])
	copy(name.id[idRemotePort:], remote[2:4])
	copy(name.id[idLocal:], local[first:first+size])
	copy(name.id[idRemote:], remote[first:first+size])
	return name, name.complete(fd)
}

// mayBeNamed fails for multipath TCP: such a socket consists of several connections, which only the kernel's list tells.
func mayBeNamed(fd int) error {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case err != nil:
		return err
	case protocol == unix.IPPROTO_MPTCP:
		return unix.EOPNOTSUPP
	case protocol != unix.IPPROTO_TCP:
		return errNoConnection
	}
	return nil
}

func (n *inetName) complete(fd int) error {
	if err := mayBeNamed(fd); err != nil {
		return err
	}
	device, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil {
		return err
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	ne := binary.NativeEndian
	ne.PutUint32(n.id[idInterface:], uint32(device))
	ne.PutUint32(n.id[idCookie:], uint32(cookie))
	ne.PutUint32(n.id[idCookie+4:], uint32(cookie>>32))
	return err
}

// rawName gives a socket's address as the kernel has it.
func rawName(call uintptr, fd int) (name [unix.SizeofSockaddrAny]byte, err error) {
	size := uint32(len(name))
	_, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return name, errno
	}
	return name, nil
}

// ask gives the kernel's record of the socket, in the buffer. It is ENOENT or ESTALE where there is none in this process's
// network namespace any more.
func (n inetName) ask(fd int, buffer []byte) (message []byte, err error) {
	if err := unix.Sendto(fd, n.marshal(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	_, err = readReply(fd, buffer, func(m []byte) { message = m })
	if err == nil && len(message) < diagMessageSize {
		err = unix.EBADMSG
	}
	return message, err
}

// marshal makes the request: a netlink header, and struct inet_diag_req_v2.
func (n inetName) marshal() []byte {
	const size = unix.SizeofNlMsghdr + diagRequestSize
	ne := binary.NativeEndian
	b := ne.AppendUint32(make([]byte, 0, size), size)
	b = ne.AppendUint16(b, diagByFamily)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...)
	b = append(b, n.family, unix.IPPROTO_TCP, 1<<(diagInfo-1), 0)
	b = ne.AppendUint32(b, connectedStates)
	return append(b, n.id[:]...)
}

// isConnection tells whether a message is about a socket that somebody has open, and is connected.
func isConnection(message []byte, inode uint64) bool {
	return parseInetSocket(message).inode == inode && connectedStates&(1<<message[1]) != 0
}

// askFor asks for each of the sockets, and leaves out what is no connection at the addresses. An error says that some could
// not be had, such as where the right to duplicate them is missing.
func askFor(open map[uint64]descriptor, addresses []netip.AddrPort) (found []observed, err error) {
	fd, err := openDiag()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	wanted, buffer := placesOf(addresses), make([]byte, diagOneSize)
	for inode, d := range open {
		message, name, err := d.ask(fd, inode, buffer)
		switch {
		case err == errNoConnection:
			continue
		case err != nil:
			return nil, err
		}
		c := observe(message, name)
		c.descriptor = d
		if wanted[c.at] || wanted[c.at.anyAddress()] {
			found = append(found, c)
		}
	}
	return found, nil
}

// ask is errNoConnection also for one in another network namespace, of which the kernel would tell nothing in a list either.
func (d descriptor) ask(fd int, inode uint64, buffer []byte) (message []byte, name inetName, err error) {
	if name, err = d.name(inode); err != nil {
		return nil, name, err
	}
	message, err = name.ask(fd, buffer)
	if err == unix.ENOENT || err == unix.ESTALE || err == nil && !isConnection(message, inode) {
		err = errNoConnection
	}
	return message, name, err
}
