// Package grpcdrain lets a gRPC server end without losing an RPC, as one part of a drain.Drain.
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
// [Server.Serve] returns after the drain. [Server.Start] is for a program that has other servers too, and calls
// Drain.Wait itself.
//
// # How clients leave
//
// The server sends GOAWAY twice, as RFC 9113, section 6.8 asks: first to make clients leave, and again when they have
// seen the first, with the last stream that the server has taken. A client opens its next RPC on a new connection, which the
// successor accepts. No RPC that a client has sent is lost, whether the client retries or not. An RPC that it has not
// sent when it reads the GOAWAY is sent on the new connection by grpc-go. With grpc-js, which is built on nghttp2, it
// fails with REFUSED_STREAM: no server has seen it, and the client repeats it (transparent retry) unless
// grpc.enable_retries is 0.
//
// # Streams
//
// A stream that does not end by itself delays the drain until the timeout. Its handler should select on
// drain.Draining, as HTTP handlers do, and return. Unavailable tells the client to open the stream again.
//
//	case <-drain.Draining(stream.Context()):
//		return status.Error(codes.Unavailable, "the server is being replaced")
//
// The handler may return at once: the server sends the end of the stream only after the GOAWAY.
// Otherwise the client would open the stream again on the old connection. The drain does not cancel the context.
//
// # Health
//
// A health.Server that is registered with the server reports NOT_SERVING during the drain, and its watches are ended.
// It does so after the GOAWAY: a client that watches the health of its only address fails all RPCs after NOT_SERVING
// until it has a new connection, although the successor already serves. If no successor serves the same address, and
// clients or load balancers have to choose another one, set Notice.
package grpcdrain
