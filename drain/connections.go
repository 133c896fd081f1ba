package drain

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections knows the state of each connection that net/http serves.
type connections struct {
	mu      sync.Mutex
	states  map[net.Conn]http.ConnState
	active  int
	changed chan struct{} // has an element if note was called since the last receive
}

func newConnections() *connections {
	return &connections{states: map[net.Conn]http.ConnState{}, changed: make(chan struct{}, 1)}
}

// note is called by net/http at each change. A hijacked connection is its hijacker's from then on.
func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.states[conn] == http.StateActive {
		c.active--
	}
	switch state {
	case http.StateActive:
		c.active++
		c.states[conn] = state
	case http.StateNew, http.StateIdle:
		c.states[conn] = state
	case http.StateHijacked, http.StateClosed:
		delete(c.states, conn)
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *connections) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.states)
}

// inFlight counts the connections with a request that is not answered yet.
func (c *connections) inFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// settle returns when no connection is left, when nothing has happened on those that are left for the linger and no
// request is in flight, or when ctx is done.
func (c *connections) settle(ctx context.Context, linger time.Duration) {
	quiet := time.NewTimer(linger)
	defer quiet.Stop()
	for c.open() > 0 {
		select {
		case <-c.changed:
			quiet.Reset(linger)
		case <-quiet.C:
			if c.inFlight() == 0 {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// closeNew closes the connections that have not sent a request.
func (c *connections) closeNew() {
	for _, conn := range c.new() {
		conn.Close()
	}
}

func (c *connections) new() []net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var conns []net.Conn
	for conn, state := range c.states {
		if state == http.StateNew {
			conns = append(conns, conn)
		}
	}
	return conns
}
