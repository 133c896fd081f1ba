package grpcdrain_test

import (
	"context"
	"fmt"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/drain/grpcdrain"
	"github.com/gracerun/grace/handoff"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// The client ends the server here, to show the drain; mostly a signal does.
func ExampleServer() {
	ln, err := handoff.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	d := drain.New()
	srv := grpcdrain.NewServer(d)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	if err := srv.Start(ln); err != nil {
		fmt.Println(err)
		return
	}

	client, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	watch, err := healthpb.NewHealthClient(client).Watch(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	said, err := watch.Recv()
	fmt.Println(said.GetStatus(), err)
	d.Drain()
	if err := d.Wait(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("drained")
	// Output:
	// SERVING <nil>
	// drained
}
