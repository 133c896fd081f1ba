package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gracerun/grace/drain"
	"github.com/valyala/fasthttp"
)

const (
	// linger is longer than the clients' time between two requests.
	linger = 2 * time.Second
	// queuePatience bounds the emptying of a queue that other processes share and clients go on filling.
	queuePatience = time.Second
	// emptyAfter is the time without a connection after which the queue is empty.
	emptyAfter = 50 * time.Millisecond
)

// clients lets the clients of a fiber.App leave before its Shutdown.
type clients struct {
	drain *drain.Drain
	app   *fiber.App
	open  atomic.Int64
	last  atomic.Int64 // when something has happened on any connection, in nanoseconds
}

func newClients(d *drain.Drain, app *fiber.App) *clients {
	c := &clients{drain: d, app: app}
	app.Server().ConnState = c.note
	app.Use(c.count)
	return c
}

// serve has the drain serve, stop accepting, and let the clients go.
func (c *clients) serve(ln net.Listener) {
	l := newListener(ln)
	c.drain.On(drain.Accepting, "fiber", l.stop)
	c.drain.On(drain.Requests, "fiber", c.leave)
	c.drain.Go("fiber", func(context.Context) error { return c.app.Listener(l) })
}

func (c *clients) note(_ net.Conn, state fasthttp.ConnState) {
	c.last.Store(time.Now().UnixNano())
	switch state {
	case fasthttp.StateNew:
		c.open.Add(1)
	case fasthttp.StateHijacked, fasthttp.StateClosed:
		c.open.Add(-1)
	}
}

// leave calls Shutdown when all clients have left, or when those that are left have been silent for the linger.
func (c *clients) leave(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for c.open.Load() > 0 && time.Since(time.Unix(0, c.last.Load())) < linger && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return c.app.ShutdownWithContext(ctx)
}

// count has the drain count the request, as it counts those of net/http, and asks the client to leave if the drain has
// begun by the end of the handler. Handlers find drain.Draining in their UserContext.
func (c *clients) count(ctx *fiber.Ctx) error {
	ctx.SetUserContext(c.drain.WithDraining(ctx.UserContext()))
	defer c.drain.Begin()()
	err := ctx.Next()
	select {
	case <-c.drain.Draining():
		ctx.Context().SetConnectionClose()
	default:
	}
	return err
}

// listener ends once what waits in its queue is accepted.
type listener struct {
	net.Listener
	close    func() error
	stopping chan struct{}
	until    time.Time // set before stopping is closed
	ended    chan struct{}
}

func newListener(ln net.Listener) *listener {
	return &listener{Listener: ln, close: sync.OnceValue(ln.Close), stopping: make(chan struct{}), ended: make(chan struct{})}
}

// stop returns when nothing is accepted any more.
func (l *listener) stop(ctx context.Context) error {
	l.until = time.Now().Add(queuePatience)
	close(l.stopping)
	if err := l.setDeadline(time.Now()); err != nil {
		return err
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
	}
	return nil
}

func (l *listener) setDeadline(t time.Time) error {
	return l.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		return conn, nil
	}
	select {
	case <-l.stopping:
		return l.acceptQueued()
	default:
		close(l.ended) // fasthttp takes any other error for the end
		return nil, err
	}
}

// acceptQueued says the end with the one error that is an end for fasthttp. After a timeout it would try again.
func (l *listener) acceptQueued() (net.Conn, error) {
	if time.Now().Before(l.until) && l.setDeadline(time.Now().Add(emptyAfter)) == nil {
		if conn, err := l.Listener.Accept(); err == nil {
			l.setDeadline(time.Now()) // the next Accept comes here too
			return conn, nil
		}
	}
	defer close(l.ended)
	l.Close()
	return nil, net.ErrClosed
}

// Close may be called again by Shutdown, which does not wait for the requests after an error.
func (l *listener) Close() error { return l.close() }
