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

// errStopped is an end in the eyes of the servers that know net.ErrClosed or its text only.
var errStopped = fmt.Errorf("cannot accept: %w: %w", ErrDraining, net.ErrClosed)

const (
	// queuePatience is for what comes into the queue after Stop: other processes may share it, and clients go on
	// filling it. What was there before is taken, however long that takes.
	queuePatience = time.Second
	// stolenPatience is how long one Accept waits for a connection that was seen in the queue: another process may
	// have taken it.
	stolenPatience = 10 * time.Millisecond
	// emptyPatience is how long nothing comes out of a queue that is empty, where it cannot be seen. What waits in it
	// comes out at once.
	emptyPatience = 50 * time.Millisecond
)

// Listener stops without losing the connections in its queue: closing the last descriptor of a socket makes the kernel
// reset them, although their clients see them as established. Serve has its own; this is for servers of other kinds, by
// Drain.On. Its methods may be called from any goroutine.
type Listener struct {
	ln        net.Listener
	close     func() error
	accept    func()
	accepting chan struct{} // closed at the first Accept
	stop      func()
	stopping  chan struct{}
	until     time.Time    // for the queue; set before stopping is closed, as is owed
	owed      atomic.Int64 // connections that waited in the queue then and may wait still
	end       func()
	ended     chan struct{} // closed when the server accepts no more
}

// NewListener owns ln. Give it the socket itself and put TLS around it, since a ln without SetDeadline, such as
// tls.NewListener gives, is closed as it stands.
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

// Accept gives what is queued still when Stop was called, and then an error that is both ErrDraining and net.ErrClosed.
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

// Close is for the server that accepts no more. It may be called again.
func (l *Listener) Close() error {
	defer l.end()
	return l.close()
}

func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Stop has Accept empty the queue and close the socket. What comes into the queue later is taken for a second at most,
// since other processes may share it. It returns when the server has the error of Accept, or has called Close, or when
// ctx is done. It never fails; the error makes it a step of a Drain.
func (l *Listener) Stop(ctx context.Context) error {
	l.stop()
	select {
	case <-l.ended:
	case <-ctx.Done():
		l.close()
	}
	return nil
}

// beginToStop wakes an Accept that waits.
func (l *Listener) beginToStop() {
	l.until = time.Now().Add(queuePatience)
	l.owed.Store(int64(queueLength(l.ln)))
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
	for time.Now().Before(l.until) || l.owed.Load() > 0 {
		patience := emptyPatience
		waits, seen := queued(l.ln)
		if seen {
			patience = stolenPatience
		}
		if seen && !waits || !l.setDeadline(time.Now().Add(patience)) {
			break
		}
		conn, err := l.ln.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			l.owed.Add(-1)
			return conn, err
		}
		if !seen {
			break
		}
	}
	l.Close()
	return nil, errStopped
}
