// Package drain lets a Go program end without losing a request or a job: for its replacement by grace or by systemd,
// and for the end of a container. It needs no supervisor.
//
// This is a whole program:
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
// [ListenAndServe] takes the socket that a supervisor has left for the address, or binds one. [Serve] takes a listener,
// such as one of handoff.ListenNamed.
//
// # What Shutdown loses
//
// http.Server.Shutdown closes idle connections at once. A client that keeps its connection and is about to write the
// next request finds it closed under it, and must not repeat a POST by itself. Even a request that was read already is
// dropped if Shutdown comes in that moment (https://go.dev/issue/75591). A connection in the accept queue is reset if
// the last process closes the listener.
//
// [Serve] asks the clients to leave instead. While it drains, each request that comes in is answered with Connection:
// close, and a client that has read that opens its next connection to the successor. Shutdown comes when nobody is
// left, or when those that are left have been silent for the [Linger]. Set it longer than the time that your clients
// take between two requests; it costs nothing while they all come back sooner, since the drain ends with the last
// connection.
//
// HTTP/2 clients are asked by two GOAWAYs: the first refuses nothing, and the second, which names the last stream, comes
// when the client has answered, or after five seconds. So each stream that a client has sent is answered. What a client
// has not sent when it reads the first GOAWAY is its own to open again elsewhere: clients on nghttp2 (Node, grpc-js, curl)
// fail such a request with REFUSED_STREAM, by which they say that no server has seen it, and that it may be repeated,
// whatever its method is. No server can spare them that. Use [ServeTLS] for HTTPS.
//
// # More than one server
//
// A [Drain] knows all that a program consists of, and ends it in the right order: nothing new is accepted, requests are
// finished, streams and then background workers are ended, resources are closed, the last one first.
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
// Whatever has an end of its own takes part by [Drain.On]. A framework that owns its server does so with its Shutdown,
// a program that handles the signals itself calls [Drain.Drain]. A server that is no http.Server accepts from a
// [Listener]. The package drain/grpcdrain does it for gRPC.
//
// # What it tells
//
// The log (see [Log]) says "start draining (3 in flight)" with the cause, such as "received SIGTERM", each second
// "draining... (3 in flight)", and last "drained in 1.2s" or, if anything did not end in time, "gave up after 20.0s (3 in
// flight)" with its name. The supervisor gets the same count.
//
// # Streams
//
// An event stream does not end by itself. The drain does not cancel the contexts of requests, for that would cut
// ordinary ones. The package drain/sse writes event streams that end well. A handler of your own declares its [Stream],
// and returns when it has to end; one that heeds its context alone is put into [CancelOnDrain], route by route.
//
// The client of a WebSocket is told 1001 (going away), without a change in the handler and whatever library it uses: the
// connection that Hijack returns follows what is written to it, and the drain waits for the handler to close it when the
// client's echo has come. A client that says nothing for three seconds after that, while its handler waits for it, is not
// waited for: the handler's read times out. The log says how many there are still, and which is the oldest. See [Spread].
// Other hijacked connections are waited for, too; their handlers can watch [Draining] of the request that began them.
//
// # What it does not do
//
// A client that thinks longer than the linger between two requests may find its connection closed under the second. What
// a WebSocket's client sends before it has read the 1001 may go unanswered: it has to ask again when it is back.
//
// A server that a framework owns, behind [Drain.Handler], ends its HTTP/2 connections as net/http does, with one GOAWAY.
// Go's own HTTP/2 client fails a request by itself ("cannot rewind body after connection loss") if a GOAWAY comes
// between the choice of the connection and the first byte, and the body cannot be read twice: give such requests a
// GetBody.
package drain
