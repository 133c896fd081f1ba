package drain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errStopped also is net.ErrClosed, because servers take only that error, or its text, for an orderly end.
var errStopped = fmt.Errorf("cannot accept: %w: %w", ErrDraining, net.ErrClosed)

const (
	// queueTimeout bounds how long connections that came after Stop are accepted: other processes may share the queue,
	// and clients keep filling it. Those that waited before Stop are all accepted, however long that takes.
	queueTimeout = time.Second
	// acceptTimeout bounds one Accept after a connection was seen in the queue, because another process may have taken it.
	acceptTimeout = 10 * time.Millisecond
	// emptyQueueTimeout is how long one Accept waits where the queue cannot be inspected; then the queue counts as
	// empty. Accept returns a connection that waits in it at once.
	emptyQueueTimeout = 50 * time.Millisecond
)

// Listener stops without losing the connections in its queue. The kernel resets them when the last descriptor of a socket
// is closed, although their clients see them as established. Serve makes a Listener itself; use this one for other kinds of
// servers, with Drain.On. Its methods may be called from any goroutine.
type Listener struct {
	ln        net.Listener
	close     func() error
	accept    func()
	accepting chan struct{} // closed at the first Accept
	stop      func()
	stopping  chan struct{}
	until     time.Time    // end of queueTimeout; set before stopping is closed, like backlog
	backlog   atomic.Int64 // connections that waited in the queue at Stop and were not accepted yet
	end       func()
	ended     chan struct{} // closed when the server accepts no more
}

// NewListener returns a Listener that owns ln. Pass it the socket itself, and put TLS around the Listener: Stop closes a
// ln without SetDeadline, such as that of tls.NewListener, at once, and the connections in its queue are lost.
func NewListener(ln net.Listener) *Listener {
	l := &Listener{
		ln:        ln,
		close:     sync.OnceValue(ln.Close),
		accepting: make(chan struct{}),
		stopping:  make(chan struct{}),
		ended:     make(chan struct{}),
	}
	l.accept = sync.OnceFunc(func() { close(l.accepting) })
	l.stop = sync.OnceFunc(l.beginToStop)
	l.end = sync.OnceFunc(func() { close(l.ended) })
	return l
}

// Accept returns the next connection. After Stop it returns the connections that are still queued, and then an error that
// is both ErrDraining and net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	if l.stopped() {
		return l.acceptQueued()
	}
	l.accept()
	conn, err := l.ln.Accept()
	if err != nil && l.stopped() {
		return l.acceptQueued()
	}
	return conn, err
}

// Close closes the socket. The server calls it when it accepts no more; it may be called several times.
func (l *Listener) Close() error {
	defer l.end()
	return l.close()
}

// Addr is the address of the socket.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Stop makes Accept empty the queue and then close the socket. Connections that come into the queue after Stop are
// accepted for one second at most, because other processes may share the queue. Stop returns when Accept has returned its
// error to the server, when the server has called Close, or when ctx is done. It always returns nil; it has an error so
// that it can be a step of a Drain.
func (l *Listener) Stop(ctx context.Context) error {
	l.stop()
	select {
	case <-l.ended:
	case <-ctx.Done():
		l.close()
	}
	return nil
}

// beginToStop wakes a blocked Accept by a deadline in the past.
func (l *Listener) beginToStop() {
	l.until = time.Now().Add(queueTimeout)
	l.backlog.Store(int64(queueLength(l.ln)))
	close(l.stopping)
	if !l.setDeadline(time.Unix(1, 0)) {
		l.close()
	}
}

func (l *Listener) setDeadline(at time.Time) bool {
	ln, ok := l.ln.(interface{ SetDeadline(time.Time) error })
	return ok && ln.SetDeadline(at) == nil
}

func (l *Listener) stopped() bool { return closed(l.stopping) }

func (l *Listener) accepted() bool { return closed(l.accepting) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (l *Listener) acceptQueued() (net.Conn, error) {
	for time.Now().Before(l.until) || l.backlog.Load() > 0 {
		timeout := emptyQueueTimeout
		waits, seen := queued(l.ln)
		if seen {
			timeout = acceptTimeout
		}
		if seen && !waits || !l.setDeadline(time.Now().Add(timeout)) {
			break
		}
		conn, err := l.ln.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			l.backlog.Add(-1)
			return conn, err
		}
		if !seen {
			break
		}
	}
	l.Close()
	return nil, errStopped
}
