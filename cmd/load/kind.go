package load

// Kind is one way of using a server.
type Kind string

const (
	NewConnection Kind = "new connection"  // GET / on a connection of its own
	KeepAliveGet  Kind = "keep-alive GET"  // GET / again and again on one connection
	KeepAlivePost Kind = "keep-alive POST" // POST /echo on one connection; the body has to come back
	Slow          Kind = "slow request"    // GET /slow on a connection of its own; long enough to span an upgrade
	Stream        Kind = "event stream"    // GET /events: server-sent events, none of which may be missing
	Echo          Kind = "echo"            // bytes over a stream connection that come back
	Packet        Kind = "packet echo"     // a datagram that comes back
)

// Kinds returns every kind, in the order in which they are shown.
func Kinds() []Kind {
	return []Kind{NewConnection, KeepAliveGet, KeepAlivePost, Slow, Stream, Echo, Packet}
}

// quick says that the latency of this kind is the server's, not that of a wait that was asked for.
func (k Kind) quick() bool { return k != Slow && k != Stream }

func (k Kind) path() string {
	switch k {
	case KeepAlivePost:
		return "/echo"
	case Slow:
		return "/slow"
	case Stream:
		return "/events"
	}
	return "/"
}

// client owns its connection and is used by one goroutine.
type client interface {
	// exchange sends one request and reads its whole answer.
	exchange() (Source, error)
	// close ends the connection that the last exchange left open, if any.
	close()
}

func (l *Load) client(kind Kind) client {
	switch kind {
	case Echo:
		return &echoClient{link: link{load: l}}
	case Packet:
		return &packetClient{link: link{load: l}}
	}
	return newHTTPClient(l, kind)
}

func (l *Load) run(kind Kind) {
	if kind == Stream {
		l.follow()
		return
	}
	c := l.client(kind)
	defer c.close()
	for more := l.ramp(); more; {
		begun := l.begin()
		source, err := c.exchange()
		if l.hard.Err() != nil {
			return
		}
		l.end(kind, begun, source, err)
		more = l.pause(err)
	}
}

// path is where an HTTP client of a kind sends its requests.
func (c Config) path(kind Kind) string {
	if path, ok := c.Paths[kind]; ok {
		return path
	}
	return kind.path()
}
