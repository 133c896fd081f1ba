package host

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// packetLooks bounds what is spent on an app that binds a port for each packet that it sends, as some resolvers do.
const packetLooks = 8

// reportPackets says who has the address of a UDP socket that the app binds. No such socket is captured, so the kernel
// refuses what the generation before has.
func (c *captureHandler) reportPackets(call capture.Call, at netip.AddrPort) {
	if c.packets++; c.packets > packetLooks {
		return
	}
	fd, err := call.Duplicate()
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if mayShare(fd) {
		return
	}
	v6Only, _ := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	sockets, err := sockdiag.InetHolding("udp", at, v6Only == 1)
	if err != nil || len(sockets) == 0 {
		return
	}
	c.tellInUse(fmt.Errorf("%w; grace does not capture UDP sockets (use --listen udp://%s, or turn off what needs this one, such as HTTP/3)",
		socket.InUse(socket.Address{Network: "udp", Addr: at.String()}, sockets, nil), at))
}

// mayShare: of two UDP sockets with either option the kernel lets both have an address.
func mayShare(fd int) bool {
	reuseAddr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	reusePort, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	return err != nil || err2 != nil || reuseAddr != 0 || reusePort != 0
}

func isUDP(protocol string) bool { return strings.HasPrefix(protocol, "UDP") }
