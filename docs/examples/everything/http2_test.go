//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// http2Load is clients of HTTP/2 without TLS, several of which share a connection. The body of their requests cannot be
// read again, so that the Transport repeats none of which it has sent anything.
type http2Load struct {
	*crowd
	connections atomic.Int64
	clients     []*http2Client
}

const (
	transports  = 4
	onTransport = 8 // clients
)

func startHTTP2(addr string) *http2Load {
	l := &http2Load{crowd: newCrowd("HTTP/2", 10*time.Millisecond)}
	for n := range transports {
		transport := l.transport()
		for m := range onTransport {
			c := &http2Client{transport: transport, url: "http://" + addr + "/entries", name: fmt.Sprintf("HTTP/2 client %d.%d", n, m)}
			l.clients = append(l.clients, c)
			l.add(c)
		}
	}
	return l
}

// transport is not net/http's, which closes the body of a request that it has not sent, for want of a connection, and does
// not send it then (https://go.dev/issue/62450).
func (l *http2Load) transport() *http2.Transport {
	var dialer net.Dialer
	return &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			l.connections.Add(1)
			return dialer.DialContext(ctx, network, addr)
		},
	}
}

func (l *http2Load) check(t *testing.T, upgrades int, j *entries) {
	t.Helper()
	for _, c := range l.clients {
		j.mustHave(t, c.acknowledged)
	}
	if n := l.connections.Load(); n < int64(transports*(upgrades+1)) {
		t.Errorf("the HTTP/2 clients had %d connections", n)
	}
}

type http2Client struct {
	transport    *http2.Transport
	url          string
	name         string
	sent         int
	acknowledged []string
}

func (c *http2Client) exchange() error {
	c.sent++
	entry := fmt.Sprintf("%s: %d", c.name, c.sent)
	request, err := http.NewRequest(http.MethodPost, c.url, io.MultiReader(strings.NewReader(entry)))
	if err != nil {
		return err
	}
	response, err := c.transport.RoundTrip(request)
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

func (c *http2Client) close() { c.transport.CloseIdleConnections() }
