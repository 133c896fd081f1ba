package grpcdrain

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/gracerun/grace/drain"
)

// helloPatience is what new connections get to do their handshakes when the server stops accepting.
const helloPatience = 2 * time.Second

// listener stops without losing a connection: GracefulStop closes those that were accepted just before it.
type listener struct {
	*drain.Listener
	accept    func()
	accepting chan struct{} // closed at the first Accept

	mu      sync.Mutex
	new     map[*conn]struct{} // those that have not done their handshakes
	limit   time.Time          // for these, if it is set
	changed chan struct{}      // has an element if one has left since the last receive
}

func newListener(ln net.Listener) *listener {
	l := &listener{
		Listener:  drain.NewListener(ln),
		accepting: make(chan struct{}),
		new:       map[*conn]struct{}{},
		changed:   make(chan struct{}, 1),
	}
	l.accept = sync.OnceFunc(func() { close(l.accepting) })
	return l
}

// Accept is called by one goroutine of grpc. The connections take part in stop.
func (l *listener) Accept() (net.Conn, error) {
	l.accept()
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.enter(c), nil
}

// stop returns when all connections that were accepted are served, or ctx is done.
func (l *listener) stop(ctx context.Context) error {
	if err := l.Stop(ctx); err != nil {
		return err
	}
	l.hurry(time.Now().Add(helloPatience))
	for l.greeting() && ctx.Err() == nil {
		select {
		case <-l.changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func (l *listener) enter(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	entered := &conn{Conn: c, of: l}
	l.new[entered] = struct{}{}
	return entered
}

func (l *listener) greeting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.new) > 0
}

// hurry does not wait for grpc's ConnectionTimeout, which is two minutes unless set.
func (l *listener) hurry(limit time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	for c := range l.new {
		if c.bounded {
			_ = c.Conn.SetDeadline(limit) // a connection that is closed has no deadline
		}
	}
}

// leave is called with mu.
func (l *listener) leave(c *conn) {
	delete(l.new, c)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// conn is new until its first deadline is taken away, which grpc sets for the handshakes.
type conn struct {
	net.Conn
	of      *listener
	bounded bool // guarded by of.mu
}

func (c *conn) SetDeadline(t time.Time) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if t.IsZero() {
		c.of.leave(c)
		return c.Conn.SetDeadline(t)
	}
	c.bounded = true
	if limit := c.of.limit; !limit.IsZero() && t.After(limit) {
		t = limit
	}
	return c.Conn.SetDeadline(t)
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	c.of.leave(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
