package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// What include/uapi/linux/inet_diag.h and sock_diag.h define and x/sys does not.
const (
	diagByFamily     = 20 // SOCK_DIAG_BY_FAMILY
	diagBytecode     = 1  // INET_DIAG_REQ_BYTECODE
	diagInfo         = 2  // INET_DIAG_INFO
	diagV6Only       = 11 // INET_DIAG_SKV6ONLY
	diagJump         = 1  // INET_DIAG_BC_JMP
	diagSourceAtMost = 3  // INET_DIAG_BC_S_LE
	diagSourceFrom   = 2  // INET_DIAG_BC_S_GE

	diagRequestSize = 56 // struct inet_diag_req_v2
	diagMessageSize = 72 // struct inet_diag_msg
	diagReplySize   = 32 << 10
	diagOneSize     = 4 << 10 // a reply about one socket takes less than a kilobyte
)

// diagTimeout is for a kernel that does not answer: a dump is made inside recv, and takes milliseconds.
var diagTimeout = unix.Timeval{Sec: 2}

// inetQuery picks sockets: one family and protocol, some states (bits 1<<TCP_LISTEN and so on), some source ports.
type inetQuery struct {
	family, protocol uint8
	states           uint32
	ports            []portRange
	extensions       uint8 // what to tell beyond the row itself: bits 1<<(diagInfo-1) and so on
}

// inetSocket is one row of the kernel's table.
type inetSocket struct {
	local  netip.Addr
	port   uint16 // the local one
	remote netip.AddrPort
	uid    int
	inode  uint64
	v6Only bool
}

// each calls visit with every socket that matches, as the kernel's inet_diag reports them.
func (q inetQuery) each(visit func(inetSocket)) error {
	return q.eachMessage(func(message []byte) { visit(parseInetSocket(message)) })
}

func (q inetQuery) eachMessage(visit func([]byte)) error {
	fd, err := openDiag()
	if err != nil {
		return fmt.Errorf("cannot query the kernel for sockets: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, q.marshal(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot query the kernel for sockets: %w", err)
	}
	if err := readDump(fd, visit); err != nil {
		return fmt.Errorf("cannot read the kernel's list of sockets: %w", err)
	}
	return nil
}

// openDiag makes a socket for questions, which the caller closes.
func openDiag() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &diagTimeout); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// marshal makes the request: a netlink header, struct inet_diag_req_v2, and a filter program on the source ports,
// without which the kernel would send every socket of the machine.
func (q inetQuery) marshal() []byte {
	program := sourcePortProgram(q.ports)
	size := unix.SizeofNlMsghdr + diagRequestSize + unix.SizeofNlAttr + len(program)
	ne := binary.NativeEndian
	b := make([]byte, 0, size)
	b = ne.AppendUint32(b, uint32(size))
	b = ne.AppendUint16(b, diagByFamily)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...)
	b = append(b, q.family, q.protocol, q.extensions, 0)
	b = ne.AppendUint32(b, q.states)
	b = binary.BigEndian.AppendUint16(b, q.onlyPort())
	b = append(b, make([]byte, diagRequestSize-10)...)
	b = ne.AppendUint16(b, uint16(unix.SizeofNlAttr+len(program)))
	b = ne.AppendUint16(b, diagBytecode)
	return append(b, program...)
}

// onlyPort is the source port of the request, 0 for any: the kernel compares it before it prepares the program's run
// (inet_diag_dump_icsk in net/ipv4/inet_diag.c), and a bind is late by this for each listener of the machine.
func (q inetQuery) onlyPort() uint16 {
	if len(q.ports) != 1 || q.ports[0].first != q.ports[0].last {
		return 0
	}
	return q.ports[0].first
}

// sourcePortProgram is "port >= first and port <= last or" the next range: each test is an operation and its operand,
// with the distance to go on a yes, and on a no; a distance 4 past the end rejects. On a yes the next operation has to
// follow, so it takes a jump to leave (inet_diag_bc_audit in net/ipv4/inet_diag.c).
func sourcePortProgram(ports []portRange) []byte {
	const test, jump = 8, 4
	ne := binary.NativeEndian
	left := len(ports)*(2*test+jump) - jump // from the operation on
	program := make([]byte, 0, max(left, 0))
	operation := func(code, yes byte, no, size int, operands ...uint16) {
		program = ne.AppendUint16(append(program, code, yes), uint16(no))
		for _, operand := range operands {
			program = ne.AppendUint16(program, operand)
		}
		left -= size
	}
	for i, r := range ports {
		next := 2*test + jump // the distance to the next range
		if i == len(ports)-1 {
			next = left + 4
		}
		operation(diagSourceFrom, test, next, test, 0, r.first)
		operation(diagSourceAtMost, test, next-test, test, 0, r.last)
		if i < len(ports)-1 {
			operation(diagJump, jump, left, jump)
		}
	}
	return program
}

var replies = sync.Pool{New: func() any { return new([diagReplySize]byte) }}

// readDump calls visit with the payload of every message of a dump until its end. The payload is visit's as long as that runs.
func readDump(fd int, visit func([]byte)) error {
	buffer := replies.Get().(*[diagReplySize]byte)
	defer replies.Put(buffer)
	for {
		if done, err := readReply(fd, buffer[:], visit); done || err != nil {
			return err
		}
	}
}

func readReply(fd int, buffer []byte, visit func([]byte)) (done bool, err error) {
	n, _, err := unix.Recvfrom(fd, buffer, 0)
	for err == unix.EINTR {
		n, _, err = unix.Recvfrom(fd, buffer, 0)
	}
	if err != nil {
		return false, err
	}
	return readMessages(buffer[:n], visit)
}

func readMessages(b []byte, visit func([]byte)) (done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(ne.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, fmt.Errorf("a message of %d bytes in a packet of %d", size, len(b))
		}
		payload := b[unix.SizeofNlMsghdr:size]
		switch ne.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return true, messageError(payload)
		case diagByFamily:
			visit(payload)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

func messageError(payload []byte) error {
	if len(payload) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(payload)))
}

func parseInetSocket(message []byte) inetSocket {
	if len(message) < diagMessageSize {
		return inetSocket{}
	}
	ne := binary.NativeEndian
	s := inetSocket{uid: int(ne.Uint32(message[64:])), inode: uint64(ne.Uint32(message[68:]))}
	var remote netip.Addr
	if message[0] == unix.AF_INET {
		s.local = netip.AddrFrom4([4]byte(message[8:12]))
		remote = netip.AddrFrom4([4]byte(message[24:28]))
	} else {
		s.local = netip.AddrFrom16([16]byte(message[8:24])).Unmap()
		remote = netip.AddrFrom16([16]byte(message[24:40])).Unmap()
	}
	s.port, s.remote = binary.BigEndian.Uint16(message[4:]), netip.AddrPortFrom(remote, binary.BigEndian.Uint16(message[6:]))
	v6Only := diagAttribute(message[diagMessageSize:], diagV6Only)
	s.v6Only = len(v6Only) > 0 && v6Only[0] != 0
	return s
}

// diagAttribute is the value of the first attribute of a kind, nil if there is none.
func diagAttribute(attributes []byte, kind uint16) []byte {
	ne := binary.NativeEndian
	for len(attributes) >= unix.SizeofNlAttr {
		size := int(ne.Uint16(attributes))
		if size < unix.SizeofNlAttr || size > len(attributes) {
			return nil
		}
		if ne.Uint16(attributes[2:]) == kind {
			return attributes[unix.SizeofNlAttr:size]
		}
		attributes = attributes[min((size+3)&^3, len(attributes)):]
	}
	return nil
}
