// Chi is a server with go-chi/chi. chi uses net/http's middleware, so drain's wrappers for single routes fit in.
//
//	go run ./chi                                             # alone; Ctrl-C ends it
//	go build -o app ./chi && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gracerun/grace/drain"
)

var addr = flag.String("addr", ":8080", "where to listen")

func main() {
	flag.Parse()
	if err := drain.ListenAndServe(&http.Server{Addr: *addr, Handler: routes()}); err != nil {
		log.Fatal(err)
	}
}

func routes() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.Recoverer)
	r.Get("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") })
	r.Post("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r.Get("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(500 * time.Millisecond)
		io.WriteString(w, "done\n")
	})
	r.Get("/events", func(w http.ResponseWriter, r *http.Request) {
		events(r.Context(), w, drain.Draining(r.Context()))
	})
	// For a handler that only watches its context, such as one from a library.
	r.With(drain.CancelOnDrain).Get("/others/events", func(w http.ResponseWriter, r *http.Request) {
		events(r.Context(), w, nil)
	})
	return r
}

// events does not end by itself.
func events(ctx context.Context, w http.ResponseWriter, draining <-chan struct{}) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for id := 1; ; id++ {
		fmt.Fprintf(w, "id: %d\ndata: tick\n\n", id)
		http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-draining:
			return
		case <-ctx.Done():
			return
		}
	}
}
