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
		"an idle connection":  {func(c *connections) { enter(c, one, http.StateIdle) }, time.Second},
		"a silent connection": {func(c *connections) { enter(c, one, http.StateNew) }, time.Second},
		"a request longer than the linger": {func(c *connections) {
			enter(c, one, http.StateActive)
			go after(5*time.Second, func() { c.setState(one, http.StateIdle) })
		}, 6 * time.Second},
		"the last client leaves": {func(c *connections) {
			enter(c, one, http.StateActive)
			enter(c, two, http.StateIdle)
			go after(100*time.Millisecond, func() { c.setState(two, http.StateHijacked) })
			go after(200*time.Millisecond, func() { c.setState(one, http.StateClosed) })
		}, 200 * time.Millisecond},
		"another client keeps talking": {func(c *connections) {
			enter(c, one, http.StateIdle)
			enter(c, two, http.StateIdle)
			go after(900*time.Millisecond, func() { c.setState(two, http.StateActive) })
			go after(1800*time.Millisecond, func() { c.setState(two, http.StateClosed) })
		}, 2800 * time.Millisecond},
		"a request without an end": {func(c *connections) { enter(c, one, http.StateActive) }, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				c := newConnections()
				tt.conversation(c)
				start := time.Now()
				c.waitUntilIdle(ctx, time.Second)
				if took := time.Since(start); took != tt.want {
					t.Errorf("it took %v, not %v", took, tt.want)
				}
			})
		})
	}
}

func enter(c *connections, conn net.Conn, state http.ConnState) *connection {
	entered := c.add(conn, nil)
	c.setState(conn, state)
	return entered
}

func TestSettleDoesNotWaitForStreams(t *testing.T) {
	for name, stream := range map[string]func(*connection){
		"HTTP/1": func(c *connection) { c.streams.Add(1) },
		"HTTP/2": func(c *connection) { c.requests.Add(2); c.streams.Add(2) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConnections()
				streaming := enter(c, &net.TCPConn{}, http.StateActive)
				stream(streaming)
				start := time.Now()
				c.waitUntilIdle(t.Context(), time.Second)
				if took := time.Since(start); took != 0 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestSettleWaitsForARequestBesideAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConnections()
		shared := enter(c, &net.TCPConn{}, http.StateActive)
		shared.streams.Add(1)
		shared.requests.Add(2)
		start := time.Now()
		time.AfterFunc(3*time.Second, shared.endRequest)
		c.waitUntilIdle(t.Context(), time.Second)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestCloseIdle(t *testing.T) {
	for state, want := range map[http.ConnState]bool{http.StateNew: true, http.StateActive: false, http.StateIdle: true} {
		for _, http2 := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := newConnections()
				near, far := net.Pipe()
				defer near.Close()
				enter(c, near, state).http2.Store(http2)
				c.closeIdle(t.Context())
				far.SetReadDeadline(time.Now())
				_, err := far.Read(make([]byte, 1))
				if closed := err == io.EOF; closed != (want && !http2) {
					t.Errorf("reading from a connection that is %v (HTTP/2: %v) gives %v", state, http2, err)
				}
			})
		}
	}
}

func TestCutCountsRequests(t *testing.T) {
	c := newConnections()
	for _, tt := range []struct {
		state             http.ConnState
		requests, streams int32
	}{
		{http.StateActive, 0, 0}, // 1 of HTTP/1
		{http.StateActive, 0, 1}, // a stream of HTTP/1
		{http.StateActive, 5, 2}, // 3 of HTTP/2, beside streams
		{http.StateActive, 2, 2},
		{http.StateIdle, 0, 0},
	} {
		conn, _ := net.Pipe()
		entered := enter(c, conn, tt.state)
		entered.requests.Store(tt.requests)
		entered.streams.Store(tt.streams)
	}
	if n := c.cut(); n != 4 {
		t.Errorf("%d requests were cut, not 4", n)
	}
}
