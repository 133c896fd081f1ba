package handoff

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// leftSockets is process-wide because the descriptors are: they can be taken once.
var leftSockets = sync.OnceValue(func() *inheritance {
	i := inherit(os.Getenv)
	taken.Store(i)
	return i
})

// taken is what leftSockets has given, for Ready, which must not take anything: an app may use tableflip itself.
var taken atomic.Pointer[inheritance]

// Listen is net.Listen for an app that may have a supervisor: if one left a socket that is bound to addr, Listen
// returns it, else it binds a new one. Host names and service names mean what they mean to net.Listen.
//
// The network "fd" is for an app that its operator gives a descriptor's number: Listen("fd", "3") returns the inherited
// socket 3, whether or not a variable tells of it, and never binds one.
//
// The caller owns the listener and closes it. Closing an inherited one closes this process's copy only: the supervisor
// goes on holding the address, and a unix path stays. An inherited socket is given out once; asking again for its
// address is the error that it is without a supervisor, EADDRINUSE. A port 0 is always a new port: use ListenNamed for a
// port that the supervisor chose.
//
// Errors are those of net.Listen. If a socket was inherited and nobody has asked for it, EADDRINUSE names it.
func Listen(network, addr string) (net.Listener, error) {
	return leftSockets().listen(network, addr)
}

// ListenPacket is Listen for the packet networks udp, udp4, udp6 and unixgram, and for a packet socket by "fd".
func ListenPacket(network, addr string) (net.PacketConn, error) {
	return leftSockets().listenPacket(network, addr)
}

// ListenNamed is Listen for the socket with this name, whatever address it is bound to. The name is NAME= in front of
// grace's --listen address, or FileDescriptorName= in a systemd unit. Of several sockets with one name, each call returns
// the next. If no socket of that name is left, ListenNamed is Listen(network, addr).
//
// Only the systemd dialect has names.
func ListenNamed(name, network, addr string) (net.Listener, error) {
	return leftSockets().named(name, network, addr)
}

// ListenPacketNamed is ListenNamed for the packet networks udp, udp4, udp6 and unixgram.
func ListenPacketNamed(name, network, addr string) (net.PacketConn, error) {
	return leftSockets().namedPacket(name, network, addr)
}
