// Plain is a web server that knows nothing of grace, as the documentation of net/http shows it: TERM shuts it down.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/gracerun/grace/cmd/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := listen(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: demo.Handler(os.Getenv("GRACE_GENERATION"))}
	ended := make(chan error)
	go func() {
		<-ctx.Done()
		ended <- server.Shutdown(context.Background())
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
}

// listen takes the socket that was passed, or opens one at the address.
func listen(at string) (net.Listener, error) {
	if at != "fd:3" {
		return net.Listen("tcp", at)
	}
	return net.FileListener(os.NewFile(3, "listener"))
}
