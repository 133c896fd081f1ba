package drain

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

var errStopped = errors.New("the listener was told to stop")

const (
	// queuePatience bounds the emptying of a queue that other processes share and clients go on filling.
	queuePatience = time.Second
	// stolenPatience is how long one Accept waits for a connection that was seen in the queue: another process may
	// have taken it.
	stolenPatience = 10 * time.Millisecond
)

// listener stops without losing the connections in its queue: closing the last descriptor of a socket makes the kernel
// reset them, although their clients see them as established.
type listener struct {
	net.Listener
	accept    func()
	close     func() error
	accepting chan struct{} // closed at the first Accept
	stopping  chan struct{}
	until     time.Time // set before stopping is closed
}

func newListener(ln net.Listener) *listener {
	accepting := make(chan struct{})
	return &listener{
		Listener:  ln,
		accept:    sync.OnceFunc(func() { close(accepting) }),
		close:     sync.OnceValue(ln.Close),
		accepting: accepting,
		stopping:  make(chan struct{}),
	}
}

// Accept is called by net/http when the server is ready.
func (l *listener) Accept() (net.Conn, error) {
	if l.stopped() {
		return l.acceptQueued()
	}
	l.accept()
	conn, err := l.Listener.Accept()
	if err != nil && l.stopped() {
		return l.acceptQueued()
	}
	return conn, err
}

func (l *listener) Close() error { return l.close() }

// stop makes Accept return what is queued, and then errStopped.
func (l *listener) stop() {
	l.until = time.Now().Add(queuePatience)
	close(l.stopping)
	if d, ok := l.Listener.(deadliner); !ok || d.SetDeadline(time.Unix(1, 0)) != nil {
		l.close()
	}
}

type deadliner interface{ SetDeadline(time.Time) error }

func (l *listener) stopped() bool {
	select {
	case <-l.stopping:
		return true
	default:
		return false
	}
}

func (l *listener) acceptQueued() (net.Conn, error) {
	for time.Now().Before(l.until) && queued(l.Listener) {
		if err := l.Listener.(deadliner).SetDeadline(time.Now().Add(stolenPatience)); err != nil {
			break
		}
		conn, err := l.Listener.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err
		}
	}
	l.close()
	return nil, errStopped
}
