package control

import (
	"context"
	"net"
	"sync"
)

// limited accepts no more connections than it has places; the others wait in the
// kernel's queue. Those that say nothing give their places up soon.
type limited struct {
	*net.UnixListener
	places chan struct{}
	closed context.Context
	close  context.CancelFunc
}

func newLimited(l *net.UnixListener, most int) *limited {
	closed, cancel := context.WithCancel(context.Background())
	return &limited{UnixListener: l, places: make(chan struct{}, most), closed: closed, close: cancel}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed.Done():
		return nil, net.ErrClosed
	}
	c, err := l.AcceptUnix()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{UnixConn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.close()
	return l.UnixListener.Close()
}

// placed is a connection that gives its place up when it is closed.
type placed struct {
	*net.UnixConn
	leave func()
}

func (c *placed) Close() error {
	defer c.leave()
	return c.UnixConn.Close()
}
