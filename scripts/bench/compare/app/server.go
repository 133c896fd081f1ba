package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/gracerun/grace/drain/sse"
	"golang.org/x/sys/unix"
)

const (
	slow  = 500 * time.Millisecond // what /slow takes
	every = 100 * time.Millisecond // from one event to the next
)

func server(v version) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(slow)
		io.WriteString(w, "slow\n")
	})
	mux.Handle("/events", sse.Handler(events))
	pid := strconv.Itoa(os.Getpid())
	return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pid", pid)
		w.Header().Set("X-Generation", v.number)
		mux.ServeHTTP(w, r)
	})}
}

// events counts on after the last event that the client has seen.
func events(s *sse.Stream, r *http.Request) error {
	last, _ := strconv.Atoi(r.Header.Get("Last-Event-ID")) // none begins with the first
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		last++
		if err := s.Send(sse.Event{ID: strconv.Itoa(last), Data: fmt.Sprint("event ", last)}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		}
	}
}

func reusePort(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, set)
}
