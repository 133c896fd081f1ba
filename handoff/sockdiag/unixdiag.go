package sockdiag

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// What include/uapi/linux/unix_diag.h defines and x/sys does not.
const (
	unixDiagName        = 0 // UNIX_DIAG_NAME
	unixDiagVFS         = 1 // UNIX_DIAG_VFS
	unixDiagShow        = 3 // UDIAG_SHOW_NAME | UDIAG_SHOW_VFS
	unixDiagRequestSize = 24
	unixDiagMessageSize = 16
)

// unixAtFile finds the sockets whose file is at the path, by whatever name they were bound to it, that take connections or
// datagrams.
func unixAtFile(at string) (inodes []uint64, err error) {
	var stat unix.Stat_t
	if err := unix.Lstat(at, &stat); err != nil {
		return nil, err
	}
	err = eachUnixDiag(func(message []byte) {
		takes := message[1] == unix.SOCK_DGRAM || message[2] == unix.BPF_TCP_LISTEN
		if takes && isAtFile(message[unixDiagMessageSize:], &stat, at) {
			inodes = append(inodes, uint64(binary.NativeEndian.Uint32(message[4:])))
		}
	})
	return inodes, err
}

// isAtFile compares the file's number, of which the kernel tells 32 bits, and its device, or the last part of the name where stat
// tells another device than the kernel has (overlayfs, btrfs).
func isAtFile(attributes []byte, stat *unix.Stat_t, at string) bool {
	ne := binary.NativeEndian
	file := diagAttribute(attributes, unixDiagVFS)
	if len(file) < 8 || ne.Uint32(file) != uint32(stat.Ino) {
		return false
	}
	name, _, _ := bytes.Cut(diagAttribute(attributes, unixDiagName), []byte{0})
	device := ne.Uint32(file[4:])
	return unix.Mkdev(device>>20, device&(1<<20-1)) == uint64(stat.Dev) || path.Base(string(name)) == path.Base(at)
}

// eachUnixDiag calls visit with every unix socket, as the kernel's unix_diag reports them.
func eachUnixDiag(visit func(message []byte)) error {
	fd, err := openDiag()
	if err != nil {
		return fmt.Errorf("cannot query the kernel for unix sockets: %w", err)
	}
	defer unix.Close(fd)
	err = unix.Sendto(fd, unixDiagRequest(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = readDump(fd, func(message []byte) {
			if len(message) >= unixDiagMessageSize {
				visit(message)
			}
		})
	}
	if err != nil {
		return fmt.Errorf("cannot read the kernel's list of unix sockets: %w", err)
	}
	return nil
}

// unixDiagRequest is a netlink header and struct unix_diag_req, for sockets in all states.
func unixDiagRequest() []byte {
	const size = unix.SizeofNlMsghdr + unixDiagRequestSize
	ne := binary.NativeEndian
	b := ne.AppendUint32(make([]byte, 0, size), size)
	b = ne.AppendUint16(b, diagByFamily)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...)
	b = append(b, unix.AF_UNIX, 0, 0, 0)
	b = ne.AppendUint32(b, ^uint32(0))
	b = ne.AppendUint32(b, 0)
	b = ne.AppendUint32(b, unixDiagShow)
	return append(b, make([]byte, 8)...)
}
