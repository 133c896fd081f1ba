// Fiber is a server with gofiber/fiber, whose HTTP stack is valyala/fasthttp. Its Shutdown alone closes idle
// connections at once, even as keep-alive clients send their next request, and resets the connections in the listener's
// queue. leave.go has the code that prevents these losses; any fiber program can use it.
//
//	go run ./fiber                                             # alone; Ctrl-C ends it
//	go build -o app ./fiber && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

var addr = flag.String("addr", ":8080", "where to listen")

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ln, err := handoff.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	d := drain.New()
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	clients := newClients(d, app) // before the routes: middleware is for those that come later
	routes(app)
	clients.serve(ln)
	return d.Wait()
}

func routes(app *fiber.App) {
	app.Get("/", func(c *fiber.Ctx) error { return c.SendString("hello\n") })
	app.Post("/echo", func(c *fiber.Ctx) error { return c.Send(c.Body()) })
	app.Get("/slow", func(c *fiber.Ctx) error {
		time.Sleep(500 * time.Millisecond)
		return c.SendString("done\n")
	})
	app.Get("/events", func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderContentType, "text/event-stream")
		draining := drain.Draining(c.UserContext()) // c is not valid any more when the stream is written
		c.Context().SetBodyStreamWriter(func(w *bufio.Writer) { events(w, draining) })
		return nil
	})
}

// events does not end by itself. Only an error of Flush tells that the client has gone.
func events(w *bufio.Writer, draining <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for id := 1; ; id++ {
		fmt.Fprintf(w, "id: %d\ndata: tick\n\n", id)
		if w.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-draining:
			return
		}
	}
}
