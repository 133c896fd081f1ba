// Package grpcdrain lets a gRPC server end without losing an RPC, as a part of what a drain.Drain ends.
//
//	func main() {
//		ln, err := handoff.Listen("tcp", ":8080")
//		if err != nil {
//			log.Fatal(err)
//		}
//		d := drain.New()
//		srv := grpcdrain.NewServer(d)
//		pb.RegisterGreeterServer(srv, greeter{})
//		if err := srv.Serve(ln); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// [Server.Serve] returns after the drain. [Server.Start] is for a program that has other servers as well, and calls
// Drain.Wait itself.
//
// # How clients leave
//
// The server sends GOAWAY twice, as RFC 9113, section 6.8 asks: once to make clients leave, and once more when they have
// seen the first, with the last stream that it has taken. A client opens its next RPC on a new connection, which the
// successor accepts, and no RPC that a client has sent is lost in between, whether it retries or not. What it has not
// sent yet when it reads the GOAWAY goes on the new connection with grpc-go. With grpc-js, which is built on nghttp2, it
// ends by REFUSED_STREAM: no server has seen it, and the client repeats it by itself (transparent retry) unless
// grpc.enable_retries is 0.
//
// # Streams
//
// A stream that does not end by itself holds up the drain until its time is over. Its handler selects on
// drain.Draining, as handlers of HTTP do, and returns; Unavailable tells the client to open the stream again.
//
//	case <-drain.Draining(stream.Context()):
//		return status.Error(codes.Unavailable, "the server is being replaced")
//
// The handler may return at once: the end of the stream is held back until the client knows that it has to leave.
// Otherwise it would open the stream once more on the old connection. The context is not cancelled by the drain.
//
// # Health
//
// A health.Server that is registered with the server says NOT_SERVING without being asked to, and its watches are ended.
// It says so after the GOAWAY: a client that watches the health of its only address fails all RPCs from NOT_SERVING on
// until it has a new connection, although the successor serves already. Where there is none on the same address, and
// clients or balancers have to look for another one, set Notice.
package grpcdrain
