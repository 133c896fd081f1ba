// Echo is a server with labstack/echo. echo.Echo is an http.Handler, so drain serves it. echo's own Start and Shutdown
// would close idle connections just as their clients send the next request.
//
//	go run ./echo                                             # alone; Ctrl-C ends it
//	go build -o app ./echo && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/labstack/echo/v4"
)

var addr = flag.String("addr", ":8080", "where to listen")

func main() {
	flag.Parse()
	if err := drain.ListenAndServe(&http.Server{Addr: *addr, Handler: routes()}); err != nil {
		log.Fatal(err)
	}
}

func routes() *echo.Echo {
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello\n") })
	e.POST("/echo", func(c echo.Context) error {
		body, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		return c.Blob(http.StatusOK, echo.MIMEOctetStream, body)
	})
	e.GET("/slow", func(c echo.Context) error {
		time.Sleep(500 * time.Millisecond)
		return c.String(http.StatusOK, "done\n")
	})
	e.GET("/events", events)
	return e
}

// events does not end by itself.
func events(c echo.Context) error {
	w := c.Response()
	w.Header().Set(echo.HeaderContentType, "text/event-stream")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for id := 1; ; id++ {
		fmt.Fprintf(w, "id: %d\ndata: tick\n\n", id)
		w.Flush()
		select {
		case <-tick.C:
		case <-drain.Draining(c.Request().Context()):
			return nil
		case <-c.Request().Context().Done():
			return nil
		}
	}
}
