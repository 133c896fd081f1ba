package handoff

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// leftSockets is process-wide, because the descriptors are: they can be taken only once.
var leftSockets = sync.OnceValue(func() *inheritance {
	i := inherit(os.Getenv)
	taken.Store(i)
	return i
})

// taken is what leftSockets has returned. Ready uses it, because it must not take sockets: the app may use tableflip itself.
var taken atomic.Pointer[inheritance]

// Listen is net.Listen for an app that may have a supervisor. If the process has inherited a socket that is bound to addr,
// Listen returns it; otherwise it binds a new one. Host names and service names have the same meaning as for net.Listen. Listen
// may be called from any goroutine.
//
// The network "fd" is for an app that gets a descriptor's number from its operator: Listen("fd", "3") returns the inherited
// socket 3, whether or not a variable announces it, and never binds one.
//
// The caller owns the listener and closes it. Closing an inherited listener closes only this process's copy: the supervisor
// still holds the address, and a unix path stays. Each inherited socket is returned only once; a second call for its
// address fails with EADDRINUSE, as without a supervisor. Port 0 always means a new port: use ListenNamed for a
// port that the supervisor chose.
//
// Errors are those of net.Listen. If an inherited socket has not been returned yet, EADDRINUSE names it.
func Listen(network, addr string) (net.Listener, error) {
	return leftSockets().listen(network, addr)
}

// ListenPacket is Listen for the packet networks udp, udp4, udp6 and unixgram, and for a packet socket with "fd".
func ListenPacket(network, addr string) (net.PacketConn, error) {
	return leftSockets().listenPacket(network, addr)
}

// ListenNamed is Listen for the inherited socket with this name, whatever address it is bound to. The name is NAME= in front of
// grace's --listen address, or FileDescriptorName= in a systemd unit. If several sockets have the same name, each call returns
// the next one. If no socket of that name is left, ListenNamed is Listen(network, addr).
//
// Only the systemd dialect passes names.
func ListenNamed(name, network, addr string) (net.Listener, error) {
	return leftSockets().named(name, network, addr)
}

// ListenPacketNamed is ListenNamed for the packet networks udp, udp4, udp6 and unixgram.
func ListenPacketNamed(name, network, addr string) (net.PacketConn, error) {
	return leftSockets().namedPacket(name, network, addr)
}
