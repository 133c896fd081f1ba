package sockdiag

// Listener is a socket whose connections are counted. It need not be this process's: only a TCP socket's queue is read
// from its descriptor.
type Listener interface {
	FD() int
	// Network is tcp, udp, unix or unixgram; tcp and udp may end in 4 or 6.
	Network() string
	// Bound is an IP:port, a path or @name.
	Bound() string
	// Stream tells whether connections are accepted from the socket.
	Stream() bool
}
