// Server is the program of the contract's tests: package handoff at its beginning and package drain at its end, and no
// word about who starts it.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/gracerun/grace/cmd/demo"
	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

func main() {
	network := flag.String("network", "tcp", "its network")
	addr := flag.String("addr", "", "its address")
	flag.Parse()
	d := drain.New()
	ln, err := handoff.Listen(*network, *addr)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", demo.Handler(os.Getenv("GRACE_GENERATION")))
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
	})
	mux.HandleFunc("GET /leave", func(http.ResponseWriter, *http.Request) { d.Drain() })
	if err := d.Start(&http.Server{Handler: mux}, ln); err != nil {
		log.Fatal(err)
	}
	if err := d.Wait(); err != nil {
		log.Fatal(err)
	}
}
