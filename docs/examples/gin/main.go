// Gin is a server with gin-gonic/gin. gin.Engine is an http.Handler, so drain serves it, instead of Engine.Run, which
// cannot be stopped.
//
//	go run ./gin                                             # alone; Ctrl-C ends it
//	go build -o app ./gin && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-contrib/sse"
	"github.com/gin-gonic/gin"
	"github.com/gracerun/grace/drain"
)

var addr = flag.String("addr", ":8080", "where to listen")

func main() {
	flag.Parse()
	if err := drain.ListenAndServe(&http.Server{Addr: *addr, Handler: routes()}); err != nil {
		log.Fatal(err)
	}
}

func routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(gin.Recovery())
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "hello\n") })
	r.POST("/echo", func(c *gin.Context) {
		c.DataFromReader(http.StatusOK, c.Request.ContentLength, gin.MIMEPlain, c.Request.Body, nil)
	})
	r.GET("/slow", func(c *gin.Context) {
		time.Sleep(500 * time.Millisecond)
		c.String(http.StatusOK, "done\n")
	})
	r.GET("/events", events)
	return r
}

// events does not end by itself. Stream ends it when the client has gone.
func events(c *gin.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	id := 0
	c.Stream(func(io.Writer) bool {
		id++
		c.Render(-1, sse.Event{Id: strconv.Itoa(id), Data: "tick"})
		c.Writer.Flush()
		select {
		case <-tick.C:
			return true
		case <-drain.Draining(c.Request.Context()):
			return false
		}
	})
}
