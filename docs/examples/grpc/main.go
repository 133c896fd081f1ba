// Grpc is a gRPC server with a unary and a streaming method, and the health service. No client loses an RPC
// when the server is replaced; streams end with Unavailable, so that clients open them again.
//
//	go run ./grpc                                                  # alone; Ctrl-C ends it
//	go build -o app ./grpc && grace run --listen :50051 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"flag"
	"log"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/drain/grpcdrain"
	"github.com/gracerun/grace/handoff"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	addr := flag.String("addr", ":50051", "where the server listens")
	flag.Parse()
	if err := run(*addr); err != nil {
		log.Fatal(err)
	}
}

func run(addr string) error {
	ln, err := handoff.Listen("tcp", addr)
	if err != nil {
		return err
	}
	d := drain.New()
	srv := grpcdrain.NewServer(d)
	srv.RegisterService(&echoService, echo{})
	healthpb.RegisterHealthServer(srv, health.NewServer())
	return srv.Serve(ln)
}
