// App is the server in the test's image: what package load asks for, on the port of the manifests.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/gracerun/grace/cmd/demo"
	"github.com/gracerun/grace/drain"
)

func main() {
	err := drain.ListenAndServe(&http.Server{Addr: ":8080", Handler: demo.Handler(os.Getenv("GRACE_GENERATION"))})
	if err != nil {
		log.Fatal(err)
	}
}
