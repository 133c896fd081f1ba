package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// signed names the process in each response.
func signed(next http.Handler) http.Handler {
	generation := os.Getenv("SERVER_STARTER_GENERATION") // by grace
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Generation", generation)
		next.ServeHTTP(w, r)
	})
}

func hello(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "hello from process %d\n", os.Getpid())
}

// slow is a request that takes longer than the start of a successor.
func slow(w http.ResponseWriter, _ *http.Request) {
	time.Sleep(time.Second)
	fmt.Fprintln(w, "done")
}

func echo(w http.ResponseWriter, r *http.Request) {
	if body, ok := read(w, r); ok {
		w.Write(body)
	}
}

// read answers the request itself if it cannot have the body.
func read(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest-1))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, false
	}
	return body, true
}
