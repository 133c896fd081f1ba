// Package drain lets a Go program end without losing a request or a job, when grace or systemd replaces it or a container is
// stopped. It needs no supervisor.
//
// This is a complete program:
//
//	package main
//
//	import (
//		"log"
//		"net/http"
//
//		"github.com/gracerun/grace/drain"
//	)
//
//	func main() {
//		err := drain.ListenAndServe(&http.Server{Addr: ":8080", Handler: http.FileServer(http.Dir("."))})
//		if err != nil {
//			log.Fatal(err)
//		}
//	}
//
// [ListenAndServe] takes the socket that a supervisor has passed for the address, or binds one. [Serve] takes a listener,
// such as one from handoff.ListenNamed.
//
// # What Shutdown loses
//
// http.Server.Shutdown closes idle connections at once. A keep-alive client may be about to send its next request on such a
// connection; the request fails, and the client must not repeat a POST by itself. Even a request that the server has read is
// dropped if Shutdown comes at that moment (https://go.dev/issue/75591). A connection in the accept queue is reset when
// the last process closes the listener.
//
// [Serve] asks the clients to leave instead. While it drains, it answers each request with Connection: close,
// so the client opens its next connection to the successor. It calls Shutdown when no connection is
// left, or when the remaining ones have been silent for the [Linger]. Set that longer than the time that your clients
// take between two requests. A long linger costs nothing if all clients come back sooner, because the drain ends with the
// last connection.
//
// HTTP/2 clients get two GOAWAYs. The first refuses no stream. The second, which names the last stream, follows
// when the client has answered, or after five seconds. So each stream that a client has sent is answered. A request that a
// client has not sent when it reads the first GOAWAY has to be sent on another connection. Clients built on nghttp2
// (Node, grpc-js, curl) fail such a request with REFUSED_STREAM, which means that no server has seen it and that it may be
// repeated, whatever its method is. No server can prevent that. Use [ServeTLS] for HTTPS.
//
// # More than one server
//
// A [Drain] ends all parts of a program in the right order: it closes the listeners, finishes the requests, ends the
// streams and then the background workers, and closes the resources, the last one first.
//
//	d := drain.New()
//	d.Close("database", db)
//	d.Go("mailer", mailer.Run)
//	d.Every("cleaner", time.Hour, cleaner.Clean)
//	drain.Consume(d, "orders", queue.Receive, handleOrder)
//	if err := d.Start(web, webListener); err != nil {
//		return err
//	}
//	if err := d.Start(metrics, metricsListener); err != nil {
//		return err
//	}
//	return d.Wait()
//
// Use [Drain.On] for anything else that has to be ended, such as the Shutdown of a framework that owns its server. A
// program that handles the signals itself calls [Drain.Drain]. A server that is not an http.Server accepts from a
// [Listener]. The package drain/grpcdrain is for gRPC.
//
// # The log
//
// The log (see [Log]) says "start draining (3 in flight)" with the cause, such as "received SIGTERM", then each second
// "draining... (3 in flight)", and at the end "drained in 1.2s". If a step did not end in time, it says "gave up after
// 20.0s (3 in flight)" with the step's name. The supervisor gets the same count.
//
// # Streams
//
// An event stream does not end by itself. The drain does not cancel the contexts of requests, because that would cut
// ordinary requests. The package drain/sse writes event streams that end well. Another handler declares its [Stream]
// and returns when the channel is closed. Wrap a handler that only watches its context in [CancelOnDrain].
//
// The client of a WebSocket is sent the close frame 1001 (going away), without a change in the handler and whatever library
// it uses: the connection that Hijack returns follows the frames that are written to it. Then the drain waits until the
// handler has closed the connection, which it does when the client has replied. If the client sends nothing for three seconds
// while its handler waits for it, the handler's read times out. The log says how many connections are left, and
// which is the oldest. See [Spread]. The drain waits for other hijacked connections too; their handlers can watch
// [Draining] with the context of the request.
//
// # Limits
//
// If a client waits longer than the linger between two requests, its connection may be closed just as it sends the second. A
// message that a WebSocket's client sends before it has read the 1001 may stay unanswered: the client has to send it again
// after it has reconnected.
//
// A server that a framework owns, behind [Drain.Handler], ends its HTTP/2 connections as net/http does, with one GOAWAY.
// Go's own HTTP/2 client fails a request ("cannot rewind body after connection loss") if a GOAWAY arrives
// after the client has chosen the connection and before it has sent the first byte, and the body cannot be read twice. Set
// GetBody for such requests.
package drain
