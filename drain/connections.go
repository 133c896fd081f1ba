package drain

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connection is the state of one connection that net/http serves.
type connection struct {
	of       *connections
	state    http.ConnState // guarded by of.mu
	http2    atomic.Bool
	ending   <-chan struct{}
	requests atomic.Int32 // of HTTP/2; for HTTP/1 the state tells whether there is one
	streams  atomic.Int32
	closing  atomic.Bool // nothing can be written to the client any more
}

type connectionKey struct{}

func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// busy reports whether the connection has an unanswered request that is not a stream.
func (c *connection) busy() bool {
	if c.state != http.StateActive {
		return false
	}
	streams := c.streams.Load()
	return streams == 0 || streams < c.requests.Load()
}

func (c *connection) streaming() bool { return c.state == http.StateActive && !c.busy() }

// endRequest is for HTTP/2, where net/http reports no new state while other requests go on.
func (c *connection) endRequest() {
	c.requests.Add(-1)
	c.of.changed.wake()
}

func (c *connection) open() bool { return !c.closing.Load() }

// unanswered is the number of unanswered requests that are not streams.
func (c *connection) unanswered() int {
	if !c.busy() {
		return 0
	}
	return max(1, int(c.requests.Load()-c.streams.Load()))
}

func (c *connection) streamCount() int { return int(c.streams.Load()) }

// connections has the state of each connection that net/http serves.
type connections struct {
	mu      sync.Mutex
	all     map[net.Conn]*connection
	changed wakeup
}

func newConnections() *connections {
	return &connections{all: map[net.Conn]*connection{}, changed: newWakeup()}
}

// add is called by net/http before the first setState of a connection.
func (c *connections) add(conn net.Conn, ending <-chan struct{}) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := &connection{of: c, ending: ending}
	c.all[conn] = added
	return added
}

// setState is called by net/http at each change. A hijacked connection belongs to the handler from then on.
func (c *connections) setState(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch known := c.all[conn]; {
	case state == http.StateHijacked || state == http.StateClosed:
		delete(c.all, conn)
	case known != nil:
		known.state = state
	}
	c.changed.wake()
}

// count is the number of connections of a kind.
func (c *connections) count(kind func(*connection) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, conn := range c.all {
		if kind(conn) {
			n++
		}
	}
	return n
}

// sum adds up a number of each connection.
func (c *connections) sum(of func(*connection) int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, conn := range c.all {
		n += of(conn)
	}
	return n
}

// waitUntilIdle returns when only streaming connections are left, when no connection is busy and none has changed its
// state for the linger, or when ctx is done.
func (c *connections) waitUntilIdle(ctx context.Context, linger time.Duration) {
	quiet := time.NewTimer(linger)
	defer quiet.Stop()
	for c.count(func(conn *connection) bool { return !conn.streaming() }) > 0 {
		select {
		case <-c.changed:
			quiet.Reset(linger)
		case <-quiet.C:
			if c.count((*connection).busy) == 0 {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// waitUntilNone returns when there is no connection of a kind, or when ctx is done.
func (c *connections) waitUntilNone(ctx context.Context, kind func(*connection) bool) {
	for c.count(kind) > 0 {
		select {
		case <-c.changed:
		case <-ctx.Done():
			return
		}
	}
}

// beginClosing returns the connections of a kind. From now on no request on them is answered.
func (c *connections) beginClosing(kind func(*connection) bool) []net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var taken []net.Conn
	for conn, known := range c.all {
		if kind(known) {
			known.closing.Store(true)
			taken = append(taken, conn)
		}
	}
	return taken
}

// closeIdle closes the HTTP/1 connections without a request; Shutdown ends those of HTTP/2 with a GOAWAY. It closes the
// writing side first: if a connection is closed while the client's next bytes arrive, the kernel resets it, and the client
// loses the part of the last response that it has not read (RFC 9112, section 9.6).
func (c *connections) closeIdle(ctx context.Context) {
	idle := c.beginClosing((*connection).idle)
	for _, conn := range idle {
		if half, ok := conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			conn.Close()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	c.waitUntilNone(ctx, func(conn *connection) bool { return conn.closing.Load() })
	for _, conn := range idle {
		conn.Close()
	}
}

// closeTimeout is the time that a distant client needs to see the end of its connection, and that a handler needs to see
// that its request was cut.
const closeTimeout = 500 * time.Millisecond

func (c *connection) idle() bool {
	return !c.http2.Load() && (c.state == http.StateIdle || c.state == http.StateNew)
}

// cut closes the busy connections, and returns how many requests they had.
func (c *connections) cut() int {
	requests := c.sum((*connection).unanswered)
	for _, conn := range c.beginClosing((*connection).busy) {
		conn.Close()
	}
	return requests
}
