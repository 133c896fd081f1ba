package drain

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// unseen is a listener of which the queue cannot be seen.
type unseen struct{ net.Listener }

func (l unseen) SetDeadline(at time.Time) error { return l.Listener.(*net.TCPListener).SetDeadline(at) }

func TestStopEmptiesTheQueue(t *testing.T) {
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"seen":   func(ln net.Listener) net.Listener { return ln },
		"unseen": func(ln net.Listener) net.Listener { return unseen{ln} },
	} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t)
			l := NewListener(wrap(ln))
			for range 3 {
				connect(t, ln.Addr())
			}
			stopped := make(chan error, 1)
			go func() { stopped <- l.Stop(t.Context()) }()
			receive(t, l.stopping)
			for n := range 3 {
				conn, err := l.Accept()
				if err != nil {
					t.Fatalf("connection %d of the queue: %v", n, err)
				}
				conn.Close()
			}
			mustBeStopped(t, l)
			if err := receive(t, stopped); err != nil {
				t.Error(err)
			}
		})
	}
}

func mustBeStopped(t *testing.T, l *Listener) {
	t.Helper()
	if conn, err := l.Accept(); !errors.Is(err, ErrDraining) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v, %v", conn, err)
	}
	mustBeClosed(t, l)
}

func mustBeClosed(t *testing.T, l *Listener) {
	t.Helper()
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("the socket is open still")
	}
}

func TestStopEndsAnAcceptThatWaits(t *testing.T) {
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"with deadline":    func(ln net.Listener) net.Listener { return ln },
		"without deadline": func(ln net.Listener) net.Listener { return struct{ net.Listener }{ln} },
	} {
		t.Run(name, func(t *testing.T) {
			l := NewListener(wrap(listen(t)))
			accepted := make(chan error, 1)
			go func() {
				_, err := l.Accept()
				accepted <- err
			}()
			receive(t, l.accepting)
			if err := l.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			if err := receive(t, accepted); !errors.Is(err, ErrDraining) {
				t.Errorf("Accept gives %v", err)
			}
			mustBeClosed(t, l)
		})
	}
}

func TestQueueThatIsAlwaysFilledIsLeftInTime(t *testing.T) {
	l := NewListener(listen(t))
	connect(t, l.Addr())
	close(l.stopping) // long ago
	mustBeStopped(t, l)
}

// quiet is a listener to which nobody connects.
type quiet struct{ net.Conn }

func (l quiet) Addr() net.Addr { return l.LocalAddr() }

func (l quiet) Accept() (net.Conn, error) {
	_, err := l.Read(make([]byte, 1))
	return nil, err
}

func TestEmptyQueueThatIsNotSeenCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		l := NewListener(quiet{near})
		l.stop()
		begun := time.Now()
		if conn, err := l.Accept(); err != errStopped {
			t.Errorf("Accept gives %v, %v", conn, err)
		}
		if took := time.Since(begun); took != emptyQueueTimeout {
			t.Errorf("it took %v", took)
		}
	})
}

// Stop has to return although nobody calls Accept any more.
func TestStopOfAServerThatHasEnded(t *testing.T) {
	l := NewListener(listen(t))
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- l.Stop(t.Context()) }()
	if err := receive(t, stopped); err != nil {
		t.Error(err)
	}
	mustBeStopped(t, l)
}

func TestStopDoesNotOutliveItsTime(t *testing.T) {
	l := NewListener(listen(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.Stop(ctx)
	mustBeClosed(t, l)
}

func TestErrorsOfAcceptAreNotHidden(t *testing.T) {
	ln := listen(t)
	ln.Close()
	if conn, err := NewListener(ln).Accept(); !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrDraining) {
		t.Errorf("Accept gives %v, %v", conn, err)
	}
}
