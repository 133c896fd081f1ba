//go:build linux

package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// socketLoad is clients that have a WebSocket each, and open another one when they are told to leave.
type socketLoad struct {
	*crowd
	clients []*socketClient
}

const sockets = 10

func startSockets(t *testing.T, addr string) *socketLoad {
	t.Helper()
	l := &socketLoad{crowd: newCrowd(t, "WebSocket", 20*time.Millisecond)}
	for n := range sockets {
		c := &socketClient{of: l.crowd, url: "ws://" + addr + "/socket", name: fmt.Sprintf("WebSocket %d", n)}
		l.clients = append(l.clients, c)
		l.add(c)
	}
	return l
}

// settle returns when each client has a WebSocket of the current generation.
func (l *socketLoad) settle(t *testing.T, upgrades int) {
	t.Helper()
	l.await(t, fmt.Sprintf("each has its WebSocket %d", upgrades+1), func() bool {
		for _, c := range l.clients {
			if c.begun != upgrades+1 {
				return false
			}
		}
		return true
	})
}

func (l *socketLoad) check(t *testing.T, upgrades int, j *entries) {
	t.Helper()
	for _, c := range l.clients {
		if c.begun != upgrades+1 || c.told != upgrades {
			t.Errorf("%s: connected %d times, was told to leave %d times", c.name, c.begun, c.told)
		}
		j.mustHave(t, c.acknowledged)
	}
}

type socketClient struct {
	of           *crowd
	url          string
	name         string
	conn         *websocket.Conn
	sent         int
	acknowledged []string
	begun        int // WebSockets that have answered; guarded by of
	told         int // 1001 came
	fresh        bool
}

// exchange says no message twice: one that was not acknowledged may be in the journal all the same.
func (c *socketClient) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.open(ctx); err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	c.sent++
	err := c.say(ctx, fmt.Sprintf("%s: %d", c.name, c.sent))
	if err == nil {
		return nil
	}
	c.conn.CloseNow()
	c.conn = nil
	if websocket.CloseStatus(err) != websocket.StatusGoingAway {
		return err
	}
	c.told++
	return nil
}

func (c *socketClient) open(ctx context.Context) (err error) {
	if c.conn == nil {
		c.conn, _, err = websocket.Dial(ctx, c.url, nil)
		c.fresh = true
	}
	return err
}

// say also answers the server's close frame, by Read. An error of Write is not told: after a close frame Read knows more.
func (c *socketClient) say(ctx context.Context, entry string) error {
	written := c.conn.Write(ctx, websocket.MessageText, []byte(entry))
	_, answer, err := c.conn.Read(ctx)
	if err != nil {
		return err
	}
	if written != nil {
		return written
	}
	if string(answer) != entry {
		return fmt.Errorf("%q came back for %q", answer, entry)
	}
	c.acknowledged = append(c.acknowledged, entry)
	if c.fresh {
		c.fresh = false
		c.of.note(func() { c.begun++ })
	}
	return nil
}

func (c *socketClient) close() {
	if c.conn != nil {
		c.conn.Close(websocket.StatusNormalClosure, "")
	}
}
