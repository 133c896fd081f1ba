package control

import (
	"context"
	"net"
	"sync"
)

// Limit gives a listener that has at most so many connections at once.
func Limit(l net.Listener, most int) net.Listener {
	closed, cancel := context.WithCancel(context.Background())
	return &limited{Listener: l, places: make(chan struct{}, most), closed: closed, close: cancel}
}

// limited accepts no more connections than it has places; the others wait in the
// kernel's queue. Those that say nothing give their places up soon.
type limited struct {
	net.Listener
	places chan struct{}
	closed context.Context
	close  context.CancelFunc
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed.Done():
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.close()
	return l.Listener.Close()
}

// placed is a connection that gives its place up when it is closed.
type placed struct {
	net.Conn
	leave func()
}

func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
