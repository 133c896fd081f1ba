// Package socket is grace's side of the sockets that it holds for apps.
//
// [ParseAddress] reads a --listen value and [Bind] makes the socket, a [Listener], which stays a raw descriptor in grace,
// or takes one that grace's own service manager has made. [Dialects] describe Listeners to one instance of an app: an
// [PlanRequest] goes in, a [SocketPlan] comes out, with the descriptors and variables to start the process with. [HangupWatch]
// notices an app that shut a shared socket down.
package socket
