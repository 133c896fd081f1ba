// Minimal is the smallest complete program: it serves the current folder, and ends without losing a request.
//
//	go run ./minimal                                             # alone; Ctrl-C ends it
//	go build -o app ./minimal && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"net/http"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

func main() {
	ln, err := handoff.Listen("tcp", ":8080")
	if err == nil {
		err = drain.Serve(&http.Server{Handler: http.FileServer(http.Dir("."))}, ln)
	}
	if err != nil {
		panic(err)
	}
}
