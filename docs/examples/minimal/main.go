// Minimal is the smallest complete program. It serves the current folder, and ends without losing a request.
//
//	go run ./minimal                                             # alone; Ctrl-C ends it
//	go build -o app ./minimal && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"log"
	"net/http"

	"github.com/gracerun/grace/drain"
)

func main() {
	err := drain.ListenAndServe(&http.Server{Addr: ":8080", Handler: http.FileServer(http.Dir("."))})
	if err != nil {
		log.Fatal(err)
	}
}
