//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// http2Load is clients of HTTP/2 without TLS, several of which share a connection. Unlike an http.Transport these
// connections repeat nothing.
type http2Load struct {
	*crowd
	connections []*http2Connection
	clients     []*http2Client
}

const (
	connections  = 4
	onConnection = 8 // clients
)

func startHTTP2(t *testing.T, addr string) *http2Load {
	t.Helper()
	l := &http2Load{crowd: newCrowd(t, "HTTP/2", 10*time.Millisecond)}
	for n := range connections {
		connection := newHTTP2Connection(addr)
		l.connections = append(l.connections, connection)
		for m := range onConnection {
			c := &http2Client{connection: connection, url: "http://" + addr + "/entries", name: fmt.Sprintf("HTTP/2 client %d.%d", n, m)}
			l.clients = append(l.clients, c)
			l.add(c)
		}
	}
	return l
}

// settle returns when each connection is one with the current generation.
func (l *http2Load) settle(t *testing.T, upgrades int) {
	t.Helper()
	l.await(t, fmt.Sprintf("each has connected %d times", upgrades+1), func() bool {
		for _, connection := range l.connections {
			if connection.count() != upgrades+1 {
				return false
			}
		}
		return true
	})
}

func (l *http2Load) check(t *testing.T, upgrades int, j *entries) {
	t.Helper()
	unsent := 0
	for _, c := range l.clients {
		j.mustHave(t, c.acknowledged)
		unsent += c.unsent
	}
	for _, connection := range l.connections {
		connection.conn.Close()
		if connection.opened != upgrades+1 {
			t.Errorf("HTTP/2 clients have connected %d times", connection.opened)
		}
	}
	t.Logf("HTTP/2: %d requests were not begun, as the server had just asked to leave", unsent)
}

// http2Connection is one connection after the other.
type http2Connection struct {
	transport http.Transport
	addr      string

	mu     sync.Mutex
	conn   *http.ClientConn
	opened int
}

func newHTTP2Connection(addr string) *http2Connection {
	c := &http2Connection{addr: addr}
	c.transport.Protocols = new(http.Protocols)
	c.transport.Protocols.SetUnencryptedHTTP2(true)
	return c
}

// reserve gives a connection for one more request: a new one if the server has asked to leave the last one, which closes
// itself then, after its last answer.
func (c *http2Connection) reserve(ctx context.Context) (*http.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Reserve() == nil {
		return c.conn, nil
	}
	conn, err := c.transport.NewClientConn(ctx, "http", c.addr)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	c.opened++
	return conn, conn.Reserve()
}

func (c *http2Connection) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

type http2Client struct {
	connection   *http2Connection
	url          string
	name         string
	sent         int
	unsent       int
	acknowledged []string
}

// exchange counts a request as failed of which anything may have been sent.
func (c *http2Client) exchange(ctx context.Context) error {
	c.sent++
	entry := fmt.Sprintf("%s: %d", c.name, c.sent)
	conn, err := c.connection.reserve(ctx)
	if err != nil {
		return err
	}
	response, begun, err := c.post(ctx, conn, entry)
	if err != nil && !begun {
		c.unsent++
		return nil
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.ProtoMajor != 2 || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s, %s", response.Proto, response.Status)
	}
	c.acknowledged = append(c.acknowledged, entry)
	return nil
}

// post also tells whether the client had begun to write the request.
func (c *http2Client) post(ctx context.Context, conn *http.ClientConn, entry string) (*http.Response, bool, error) {
	var begun atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaderField: func(string, []string) { begun.Store(true) }}
	ctx = httptrace.WithClientTrace(ctx, trace)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(entry))
	if err != nil {
		return nil, false, err
	}
	response, err := conn.RoundTrip(request)
	return response, begun.Load(), err
}

func (c *http2Client) close() {}
