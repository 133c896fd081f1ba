package main

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gracerun/grace/drain"
	"github.com/valyala/fasthttp"
)

// linger is longer than the time that clients take between two requests.
const linger = 2 * time.Second

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

// serve registers the server with the drain, which stops accepting and then makes the clients leave.
func (c *clients) serve(ln net.Listener) {
	l := drain.NewListener(ln)
	c.drain.On(drain.Accepting, "fiber", l.Stop)
	c.drain.On(drain.Requests, "fiber", c.leave)
	c.drain.Go("fiber", func(context.Context) error {
		defer l.Close()
		return c.app.Listener(l)
	})
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

// leave calls Shutdown when all clients have left, or when the remaining ones have been silent for the linger.
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

// count makes the drain count the request, as it counts those of net/http, and makes the client leave if the drain has
// begun when the handler ends. drain.Draining works with the UserContext of handlers.
func (c *clients) count(ctx *fiber.Ctx) error {
	ctx.SetUserContext(c.drain.WithDraining(ctx.UserContext()))
	defer c.drain.TrackRequest()()
	err := ctx.Next()
	select {
	case <-c.drain.Draining():
		ctx.Context().SetConnectionClose()
	default:
	}
	return err
}
