package grpcdrain

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestStopEmptiesTheQueue(t *testing.T) {
	ln := listen(t)
	l := newListener(ln)
	for range 3 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- l.stop(t.Context()) }()
	receive(t, l.stopping)
	for n := range 3 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatalf("connection %d of the queue: %v", n, err)
		}
		conn.Close()
	}
	if conn, err := l.Accept(); err != errStopped {
		t.Errorf("the empty queue gives %v, %v", conn, err)
	}
	close(l.ended)
	if err := receive(t, stopped); err != nil {
		t.Error(err)
	}
}

func TestStopEndsAnAcceptThatWaits(t *testing.T) {
	l := newListener(listen(t))
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
		close(l.ended)
	}()
	receive(t, l.accepting)
	if err := l.stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := receive(t, accepted); err != errStopped {
		t.Errorf("Accept gives %v", err)
	}
}

func TestQueueThatIsAlwaysFilledIsLeftInTime(t *testing.T) {
	ln := listen(t)
	queued, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer queued.Close()
	l := newListener(ln)
	close(l.stopping) // long ago
	if conn, err := l.Accept(); err != errStopped {
		t.Errorf("Accept gives %v, %v", conn, err)
	}
}

// nowhere is a listener for connections that come from elsewhere.
type nowhere struct{ net.Listener }

func (nowhere) Close() error { return nil }

func TestStopWaitsForHandshakes(t *testing.T) {
	for name, test := range map[string]struct {
		handshake func(net.Conn)
		want      time.Duration
	}{
		"one that ends soon": {func(c net.Conn) {
			c.SetDeadline(time.Now().Add(time.Minute))
			time.Sleep(time.Second)
			c.SetDeadline(time.Time{})
		}, time.Second},
		"one that begins late": {func(c net.Conn) {
			time.Sleep(time.Second)
			c.SetDeadline(time.Now().Add(time.Minute))
			read(c)
		}, helloPatience},
		"a silent client": {func(c net.Conn) {
			c.SetDeadline(time.Now().Add(time.Minute))
			read(c)
		}, helloPatience},
		"a deadline that is soon anyway": {func(c net.Conn) {
			time.Sleep(time.Second / 2)
			c.SetDeadline(time.Now().Add(time.Second / 2))
			read(c)
		}, time.Second},
		"one without a deadline": {func(net.Conn) {}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(nowhere{})
				near, far := net.Pipe()
				defer far.Close()
				conn, err := l.enter(near, nil)
				if err != nil {
					t.Fatal(err)
				}
				close(l.ended)
				go test.handshake(conn)
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				begun := time.Now()
				l.stop(ctx)
				if took := time.Since(begun); took != test.want {
					t.Errorf("stop took %v, not %v", took, test.want)
				}
			})
		})
	}
}

// read is a handshake with a client that says nothing.
func read(c net.Conn) {
	defer c.Close()
	c.Read(make([]byte, 1))
}

func TestErrorsOfAcceptAreNotHidden(t *testing.T) {
	ln := listen(t)
	l := newListener(ln)
	ln.Close()
	if conn, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v, %v", conn, err)
	}
}
