package drain

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connection is what is known of one connection that net/http serves.
type connection struct {
	of       *connections
	state    http.ConnState // guarded by of.mu
	http2    atomic.Bool
	ending   <-chan struct{}
	requests atomic.Int32 // of HTTP/2; with HTTP/1 the state says whether there is one
	streams  atomic.Int32
	leaving  atomic.Bool // nothing can be answered any more
}

type connectionKey struct{}

func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// busy tells whether a request is not answered yet that would end by itself.
func (c *connection) busy() bool {
	if c.state != http.StateActive {
		return false
	}
	streams := c.streams.Load()
	return streams == 0 || streams < c.requests.Load()
}

func (c *connection) streaming() bool { return c.state == http.StateActive && !c.busy() }

// endRequest is for HTTP/2, where the state stays as it is while there are other requests.
func (c *connection) endRequest() {
	c.requests.Add(-1)
	c.of.changed.wake()
}

func (c *connection) staying() bool { return !c.leaving.Load() }

// unanswered is how many requests the connection is busy with.
func (c *connection) unanswered() int {
	if !c.busy() {
		return 0
	}
	return max(1, int(c.requests.Load()-c.streams.Load()))
}

// endless is how many streams there are.
func (c *connection) endless() int { return int(c.streams.Load()) }

// connections knows the state of each connection that net/http serves.
type connections struct {
	mu      sync.Mutex
	all     map[net.Conn]*connection
	changed wakeup
}

func newConnections() *connections {
	return &connections{all: map[net.Conn]*connection{}, changed: newWakeup()}
}

// add is called by net/http before the first note of a connection.
func (c *connections) add(conn net.Conn, ending <-chan struct{}) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := &connection{of: c, ending: ending}
	c.all[conn] = added
	return added
}

// note is called by net/http at each change. A hijacked connection is its hijacker's from then on.
func (c *connections) note(conn net.Conn, state http.ConnState) {
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

// count tells how many connections there are of a kind.
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

// sum adds up what a function tells of each connection.
func (c *connections) sum(of func(*connection) int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, conn := range c.all {
		n += of(conn)
	}
	return n
}

// settle returns when no connection is left but streaming ones, when nothing has happened on those that are left for
// the linger and none is busy, or when ctx is done.
func (c *connections) settle(ctx context.Context, linger time.Duration) {
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

// await returns when there is no connection of a kind, or when ctx is done.
func (c *connections) await(ctx context.Context, kind func(*connection) bool) {
	for c.count(kind) > 0 {
		select {
		case <-c.changed:
		case <-ctx.Done():
			return
		}
	}
}

// take returns the connections of a kind, which do not answer any more from now on.
func (c *connections) take(kind func(*connection) bool) []net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var taken []net.Conn
	for conn, known := range c.all {
		if kind(known) {
			known.leaving.Store(true)
			taken = append(taken, conn)
		}
	}
	return taken
}

// closeIdle closes the connections without a request, but those of HTTP/2, which Shutdown ends with a GOAWAY. It ends
// the writing side first: to close a connection while the client's next bytes come in would reset it, and what the
// client has not read of the last response would be lost (RFC 9112, section 9.6).
func (c *connections) closeIdle(ctx context.Context) {
	idle := c.take((*connection).idle)
	for _, conn := range idle {
		if half, ok := conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			conn.Close()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	c.await(ctx, func(conn *connection) bool { return conn.leaving.Load() })
	for _, conn := range idle {
		conn.Close()
	}
}

// leavePatience is what a client far away needs to see the end of its connection, and a handler to see that its request
// was cut.
const leavePatience = 500 * time.Millisecond

func (c *connection) idle() bool {
	return !c.http2.Load() && (c.state == http.StateIdle || c.state == http.StateNew)
}

// cut closes the busy connections, and tells how many requests they had.
func (c *connections) cut() int {
	requests := c.sum((*connection).unanswered)
	for _, conn := range c.take((*connection).busy) {
		conn.Close()
	}
	return requests
}
