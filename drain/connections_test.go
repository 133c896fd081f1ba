package drain

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestSettle(t *testing.T) {
	one, two := &net.TCPConn{}, &net.UnixConn{}
	after := func(d time.Duration, f func()) { time.Sleep(d); f() }
	for name, tt := range map[string]struct {
		conversation func(c *connections)
		want         time.Duration
	}{
		"nobody there":        {func(c *connections) {}, 0},
		"an idle connection":  {func(c *connections) { c.note(one, http.StateIdle) }, time.Second},
		"a silent connection": {func(c *connections) { c.note(one, http.StateNew) }, time.Second},
		"a request longer than the linger": {func(c *connections) {
			c.note(one, http.StateActive)
			go after(5*time.Second, func() { c.note(one, http.StateIdle) })
		}, 6 * time.Second},
		"the last client leaves": {func(c *connections) {
			c.note(one, http.StateActive)
			c.note(two, http.StateIdle)
			go after(100*time.Millisecond, func() { c.note(two, http.StateHijacked) })
			go after(200*time.Millisecond, func() { c.note(one, http.StateClosed) })
		}, 200 * time.Millisecond},
		"another client keeps talking": {func(c *connections) {
			c.note(one, http.StateIdle)
			c.note(two, http.StateIdle)
			go after(900*time.Millisecond, func() { c.note(two, http.StateActive) })
			go after(1800*time.Millisecond, func() { c.note(two, http.StateClosed) })
		}, 2800 * time.Millisecond},
		"a request without an end": {func(c *connections) { c.note(one, http.StateActive) }, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				c := newConnections()
				tt.conversation(c)
				start := time.Now()
				c.settle(ctx, time.Second)
				if took := time.Since(start); took != tt.want {
					t.Errorf("it took %v, not %v", took, tt.want)
				}
			})
		})
	}
}

func TestCloseNewClosesWhatHasNotSpoken(t *testing.T) {
	c := newConnections()
	peers := map[http.ConnState]net.Conn{}
	for _, state := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle} {
		near, far := net.Pipe()
		defer near.Close()
		c.note(near, state)
		peers[state] = far
	}
	c.closeNew()
	for state, peer := range peers {
		peer.SetReadDeadline(time.Now())
		_, err := peer.Read(make([]byte, 1))
		if closed := err == io.EOF; closed != (state == http.StateNew) {
			t.Errorf("reading from a connection that is %v gives %v", state, err)
		}
	}
}
