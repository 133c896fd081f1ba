package drain

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/gracerun/grace/handoff"
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
	ready    func() error
	close    func() error
	stopping chan struct{}
	until    time.Time // set before stopping is closed
}

func newListener(ln net.Listener) *listener {
	return &listener{
		Listener: ln,
		ready:    sync.OnceValue(handoff.Ready),
		close:    sync.OnceValue(ln.Close),
		stopping: make(chan struct{}),
	}
}

// Accept says once that the server is ready: net/http calls it when it is.
func (l *listener) Accept() (net.Conn, error) {
	if l.stopped() {
		return l.acceptQueued()
	}
	if err := l.ready(); err != nil {
		return nil, err
	}
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
