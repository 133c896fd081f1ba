package chaos

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"golang.org/x/sys/unix"
)

// casualties are the connections that instances had accepted when they were killed, by their clients' ends.
type casualties struct {
	mu      sync.Mutex
	killed  map[string]time.Time
	excused uint64
}

func (c *casualties) add(clients []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range clients {
		c.killed[client] = time.Now()
	}
}

// excuse reports whether a failure is that of a connection which was killed. A client's port can be a later
// connection's, hence the times.
func (c *casualties) excuse(f load.Failed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	killed, ok := c.killed[f.On.Client]
	if !ok || !f.On.Opened.Before(killed) {
		return false
	}
	c.excused++
	return true
}

// accepted are the clients' ends of the connections that a process has.
func accepted(pid int) (clients []string, err error) {
	peers, err := unixPeers()
	if err != nil {
		return nil, err
	}
	if err := tcpPeers(peers); err != nil {
		return nil, err
	}
	directory := fmt.Sprintf("/proc/%d/fd", pid)
	descriptors, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	for _, d := range descriptors {
		link, err := os.Readlink(directory + "/" + d.Name())
		if err != nil {
			return nil, err
		}
		inode, ok := strings.CutPrefix(link, "socket:[")
		if peer := peers[strings.TrimSuffix(inode, "]")]; ok && peer != "" {
			clients = append(clients, peer)
		}
	}
	return clients, nil
}

// tcpPeers adds the other end's address of each connection over IPv4, by inode (proc_net(5)).
func tcpPeers(peers map[string]string) error {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		const listens = "0A"
		if len(fields) < 10 || fields[0] == "sl" || fields[3] == listens {
			continue
		}
		host, port, _ := strings.Cut(fields[2], ":")
		h, err1 := strconv.ParseUint(host, 16, 32)
		p, err2 := strconv.ParseUint(port, 16, 16)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("cannot read %q of /proc/net/tcp", line)
		}
		var address [4]byte
		binary.NativeEndian.PutUint32(address[:], uint32(h))
		peers[fields[9]] = netip.AddrPortFrom(netip.AddrFrom4(address), uint16(p)).String()
	}
	return nil
}

// What include/uapi/linux/unix_diag.h and sock_diag.h define and x/sys does not.
const (
	diagByFamily    = 20 // SOCK_DIAG_BY_FAMILY
	diagShowPeer    = 4  // UDIAG_SHOW_PEER
	diagPeer        = 2  // UNIX_DIAG_PEER
	diagRequestSize = 24 // struct unix_diag_req
	diagMessageSize = 16 // struct unix_diag_msg
)

// unixPeers gives the other end's inode of each connected unix socket, by inode.
func unixPeers() (map[string]string, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for its unix sockets: %w", err)
	}
	defer unix.Close(fd)
	request := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	binary.NativeEndian.PutUint32(request[0:], uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], diagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request[16] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(request[20:], ^uint32(0)) // every state
	binary.NativeEndian.PutUint32(request[28:], diagShowPeer)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for its unix sockets: %w", err)
	}
	peers := map[string]string{}
	for buffer := make([]byte, 64<<10); ; {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot ask the kernel for its unix sockets: %w", err)
		}
		if done, err := readPeers(buffer[:n], peers); done || err != nil {
			return peers, err
		}
	}
}

func readPeers(messages []byte, peers map[string]string) (done bool, err error) {
	for len(messages) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(messages))
		switch binary.NativeEndian.Uint16(messages[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return false, unix.Errno(-int32(binary.NativeEndian.Uint32(messages[16:])))
		}
		body := messages[unix.NLMSG_HDRLEN:size]
		inode := binary.NativeEndian.Uint32(body[4:])
		for attributes := body[diagMessageSize:]; len(attributes) >= unix.SizeofRtAttr; {
			length := int(binary.NativeEndian.Uint16(attributes))
			if binary.NativeEndian.Uint16(attributes[2:]) == diagPeer {
				peers[fmt.Sprint(inode)] = fmt.Sprint(binary.NativeEndian.Uint32(attributes[unix.SizeofRtAttr:]))
			}
			attributes = attributes[min(len(attributes), (length+3)&^3):]
		}
		messages = messages[min(len(messages), (size+3)&^3):]
	}
	return false, nil
}
