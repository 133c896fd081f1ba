package control

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// LimitConnections gives a listener for the server that has at most so many connections at once. One more replaces the one
// that has been idle for longest, as nginx does when its connections run out: those that say nothing must not
// keep out who asks. While all are being answered it waits. Limit comes before Serve, and after the server has its Handler
// and ConnContext.
func LimitConnections(s *http.Server, l net.Listener, most int) net.Listener {
	closed, cancel := context.WithCancel(context.Background())
	handler, of := s.Handler, s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		ctx = context.WithValue(ctx, connKey{}, c)
		if of != nil {
			ctx = of(ctx, c)
		}
		return ctx
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := r.Context().Value(connKey{}).(*limitedConn); ok {
			p.set(busy)
			defer p.set(idle)
		}
		handler.ServeHTTP(w, r)
	})
	return &limitListener{Listener: l, most: most, all: map[*limitedConn]bool{}, left: make(chan struct{}, 1), closed: closed, close: cancel}
}

type connKey struct{}

// limitListener has a mutex for its connections: each connection is served by a goroutine of its own.
type limitListener struct {
	net.Listener
	most   int
	mu     sync.Mutex
	all    map[*limitedConn]bool // whether it is being answered
	turn   int
	left   chan struct{} // gets an element when a connection has closed or become idle
	closed context.Context
	close  context.CancelFunc
}

const (
	busy = true
	idle = false
)

func (l *limitListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p := &limitedConn{Conn: c, of: l}
	for !l.admit(p) {
		select {
		case <-l.left:
		case <-l.closed.Done():
			c.Close()
			return nil, net.ErrClosed
		}
	}
	return p, nil
}

// admit reports whether the connection is accepted.
func (l *limitListener) admit(p *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= l.most {
		last := l.longestIdle()
		if last == nil {
			return false
		}
		delete(l.all, last)
		last.Conn.Close() // which ends what its goroutine waits for
	}
	l.turn++
	p.since = l.turn
	l.all[p] = idle
	return true
}

func (l *limitListener) longestIdle() *limitedConn {
	var longest *limitedConn
	for p, answered := range l.all {
		if !answered && (longest == nil || p.since < longest.since) {
			longest = p
		}
	}
	return longest
}

func (l *limitListener) Close() error {
	l.close()
	return l.Listener.Close()
}

// limitedConn is a connection that makes room for another one when it is closed.
type limitedConn struct {
	net.Conn
	of    *limitListener
	since int // the turn since when it has been silent
}

func (p *limitedConn) set(answered bool) {
	l := p.of
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, has := l.all[p]; !has {
		return
	}
	l.turn++
	p.since = l.turn
	l.all[p] = answered
	l.tell()
}

func (p *limitedConn) Close() error {
	p.of.mu.Lock()
	delete(p.of.all, p)
	p.of.tell()
	p.of.mu.Unlock()
	return p.Conn.Close()
}

// tell wakes an Accept that waits for room.
func (l *limitListener) tell() {
	select {
	case l.left <- struct{}{}:
	default:
	}
}
