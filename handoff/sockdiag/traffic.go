package sockdiag

// Traffic is what goes on in the TCP connections that some processes have accepted and not closed yet, as it looks from
// outside. What is neither in Busy nor in Unclear is idle: the client has its answer and has asked for nothing since,
// or has never asked.
type Traffic struct {
	// Open counts all of them.
	Open int
	// Busy counts those in which something goes on: bytes that the app has not read or the client has not
	// acknowledged, a request, or the beginning of one, since the app sent last, or any data in the last moments.
	Busy int
	// Unclear counts those that are quiet and of which the kernel's record cannot tell whether a request came last or
	// an answer. They are of two kinds.
	//
	// The record counts in clock ticks of up to 10 ms (CONFIG_HZ). A client nearby may have sent its next request in the
	// tick of the last answer; mostly the client's acknowledgement tells the one case from the other.
	//
	// And in TLS 1.3 the server sends session tickets after the handshake, often when the first request has come
	// already. So a connection that got no more than a handshake and a request takes may still owe the first answer.
	//
	// Being quiet does not make them clear later. Give them the time of a slow request: nobody waits for processes that
	// get no new connections.
	Unclear int
}
