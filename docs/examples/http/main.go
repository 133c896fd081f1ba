// Http is the main of a typical service: a public server, with TLS if a certificate is given, an admin server, a
// store that is closed last, middleware and timeouts.
//
//	go run ./http                                     # alone; Ctrl-C ends it
//	go build -o app ./http
//	grace run --listen :8080 --listen 127.0.0.1:9090 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

var (
	addr  = flag.String("addr", ":8080", "where the public server listens")
	admin = flag.String("admin", "127.0.0.1:9090", "where the admin server listens")
	cert  = flag.String("cert", "", "file with the certificate of the public server; none means no TLS")
	key   = flag.String("key", "", "file with its private key")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		slog.Error("the service ended with an error", "error", err)
		os.Exit(1)
	}
}

// run first does what can fail. Wait announces that the service is ready, and returns after the drain.
func run() error {
	publicListener, err := handoff.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	adminListener, err := handoff.Listen("tcp", *admin)
	if err != nil {
		return err
	}
	d := drain.New(drain.Linger(3*time.Second), drain.Timeout(25*time.Second))
	visits := &store{}
	d.Close("store", visits)
	public := &http.Server{
		Handler:           logged(publicRoutes(visits)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	if err := start(d, public, publicListener); err != nil {
		return err
	}
	if err := d.Start(&http.Server{Handler: adminRoutes(d, visits)}, adminListener); err != nil {
		return err
	}
	return d.Wait()
}

func start(d *drain.Drain, srv *http.Server, ln net.Listener) error {
	if *cert == "" {
		return d.Start(srv, ln)
	}
	return d.StartTLS(srv, ln, *cert, *key)
}

func publicRoutes(visits *store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		n, err := visits.add()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "you are visitor %d\n", n)
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(500 * time.Millisecond)
		if _, err := visits.add(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, "done\n")
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { events(w, r, visits) })
	return mux
}

// events does not end by itself.
func events(w http.ResponseWriter, r *http.Request, visits *store) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for id := 1; ; id++ {
		fmt.Fprintf(w, "id: %d\ndata: %d visits\n\n", id, visits.count())
		http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-drain.Draining(r.Context()):
			return
		case <-r.Context().Done():
			return
		}
	}
}

// adminRoutes are for a load balancer and for people. 503 tells the load balancer to use another server.
func adminRoutes(d *drain.Drain, visits *store) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-d.Draining():
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
		}
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d in flight, %d visits\n", d.InFlight()-1, visits.count()) // this one does not count
	})
	return mux
}

func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		next.ServeHTTP(w, r)
		slog.Debug("request", "method", r.Method, "path", r.URL.Path, "took", time.Since(begun))
	})
}
