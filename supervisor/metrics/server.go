package metrics

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"golang.org/x/sys/unix"
)

// Bounds of what clients can take.
const (
	maxConnections = 64
	maxScrapes     = 4
	maxHeader      = 16 << 10
	readLimit      = 5 * time.Second
	writeLimit     = 10 * time.Second // which a scrape has to begin and end in
	idleLimit      = 2 * time.Minute  // more than usually lies between two scrapes
	healthLimit    = time.Second
)

// Server answers at the address for metrics.
type Server struct {
	source Source
	http   *http.Server
	ended  chan error
}

// Serve answers on the listening socket fd until Close. The descriptor stays the caller's, who may hand it on.
func Serve(fd int, version string, c *Counters, source Source) (*Server, error) {
	l, err := listen(fd)
	if err != nil {
		return nil, err
	}
	s := &Server{source: source, ended: make(chan error, 1)}
	s.http = &http.Server{
		Handler:        s.routes(newScrape(c, &gauges{source, version})),
		ReadTimeout:    readLimit,
		WriteTimeout:   writeLimit,
		IdleTimeout:    idleLimit,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	limited := control.LimitConnections(s.http, l, maxConnections)
	go func() { s.ended <- s.http.Serve(limited) }()
	return s, nil
}

// listen has a descriptor of its own, which can be closed while the socket goes on.
func listen(fd int) (net.Listener, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate the socket for metrics: %w", err)
	}
	file := os.NewFile(uintptr(own), "metrics")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics: %w", err)
	}
	if l, ok := l.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	return l, nil
}

func (s *Server) routes(metrics http.Handler) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /metrics", metrics)
	routes.HandleFunc("GET /healthz", s.answer(func(control.Status) string { return "" }))
	routes.HandleFunc("GET /readyz", s.answer(whyNotReady))
	return routes
}

// answer says ok, or 503 and why not.
func (s *Server) answer(obstacle func(control.Status) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthLimit)
		defer cancel()
		status, err := s.source.Snapshot(ctx)
		why := obstacle(status)
		if err != nil {
			why = "grace does not answer: " + err.Error()
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if why != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, why)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// closeLimit is for answers that are being written.
const closeLimit = time.Second

// Close takes no further request and ends all connections. It is called once.
func (s *Server) Close() error {
	if err := control.Shutdown(s.http, s.ended, closeLimit); err != nil {
		return fmt.Errorf("the metrics server failed: %w", err)
	}
	return nil
}
