package grpcdrain

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

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
		}, handshakeTimeout},
		"a silent client": {func(c net.Conn) {
			c.SetDeadline(time.Now().Add(time.Minute))
			read(c)
		}, handshakeTimeout},
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
				conn := l.enter(near)
				l.Close()
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
