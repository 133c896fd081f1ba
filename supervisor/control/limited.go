package control

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Limit gives a listener for the server that has at most so many connections at once. One more takes the place of the one
// that has been without a request for longest, as nginx does when its connections run out: those that say nothing must not
// keep out who asks. While all are being answered it waits. Limit comes before Serve, and after the server has its Handler
// and ConnContext.
func Limit(s *http.Server, l net.Listener, most int) net.Listener {
	closed, cancel := context.WithCancel(context.Background())
	handler, of := s.Handler, s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		ctx = context.WithValue(ctx, placeKey{}, c)
		if of != nil {
			ctx = of(ctx, c)
		}
		return ctx
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := r.Context().Value(placeKey{}).(*placed); ok {
			p.set(answering)
			defer p.set(silent)
		}
		handler.ServeHTTP(w, r)
	})
	return &limited{Listener: l, most: most, all: map[*placed]bool{}, left: make(chan struct{}, 1), closed: closed, close: cancel}
}

type placeKey struct{}

// limited has a mutex for its places: each connection is served by a goroutine of its own.
type limited struct {
	net.Listener
	most   int
	mu     sync.Mutex
	all    map[*placed]bool // whether it is being answered
	turn   int
	left   chan struct{} // gets one when a place may have become free
	closed context.Context
	close  context.CancelFunc
}

const (
	answering = true
	silent    = false
)

func (l *limited) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p := &placed{Conn: c, of: l}
	for !l.seat(p) {
		select {
		case <-l.left:
		case <-l.closed.Done():
			c.Close()
			return nil, net.ErrClosed
		}
	}
	return p, nil
}

// seat reports whether the connection got a place.
func (l *limited) seat(p *placed) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= l.most {
		last := l.longestSilent()
		if last == nil {
			return false
		}
		delete(l.all, last)
		last.Conn.Close() // which ends what its goroutine waits for
	}
	l.turn++
	p.since = l.turn
	l.all[p] = silent
	return true
}

func (l *limited) longestSilent() *placed {
	var longest *placed
	for p, answered := range l.all {
		if !answered && (longest == nil || p.since < longest.since) {
			longest = p
		}
	}
	return longest
}

func (l *limited) Close() error {
	l.close()
	return l.Listener.Close()
}

// placed is a connection that gives its place up when it is closed.
type placed struct {
	net.Conn
	of    *limited
	since int // the turn since when it has been silent
}

func (p *placed) set(answered bool) {
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

func (p *placed) Close() error {
	p.of.mu.Lock()
	delete(p.of.all, p)
	p.of.tell()
	p.of.mu.Unlock()
	return p.Conn.Close()
}

// tell wakes who waits for a place.
func (l *limited) tell() {
	select {
	case l.left <- struct{}{}:
	default:
	}
}
