package grpcdrain

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/gracerun/grace/drain"
)

// handshakeTimeout bounds the handshakes of new connections once the server stops accepting.
const handshakeTimeout = 2 * time.Second

// listener stops without losing a connection. GracefulStop alone closes connections that were accepted just before it.
type listener struct {
	*drain.Listener
	accept    func()
	accepting chan struct{} // closed at the first Accept

	mu      sync.Mutex
	new     map[*conn]struct{} // connections that have not finished their handshakes
	limit   time.Time          // end of handshakeTimeout, or zero
	changed chan struct{}      // has an element if a connection was removed from new since the last receive
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

// Accept is called by one goroutine of grpc. stop waits for the connections that it returns.
func (l *listener) Accept() (net.Conn, error) {
	l.accept()
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.enter(c), nil
}

// stop returns when all accepted connections have finished their handshakes, or when ctx is done.
func (l *listener) stop(ctx context.Context) error {
	if err := l.Stop(ctx); err != nil {
		return err
	}
	l.boundHandshakes(time.Now().Add(handshakeTimeout))
	for l.handshaking() && ctx.Err() == nil {
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

func (l *listener) handshaking() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.new) > 0
}

// boundHandshakes replaces grpc's ConnectionTimeout, whose default is two minutes.
func (l *listener) boundHandshakes(limit time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	for c := range l.new {
		if c.bounded {
			_ = c.Conn.SetDeadline(limit) // a connection that is closed has no deadline
		}
	}
}

// leave is called with mu held.
func (l *listener) leave(c *conn) {
	delete(l.new, c)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// conn counts as new until grpc removes the deadline that it has set for the handshakes.
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
