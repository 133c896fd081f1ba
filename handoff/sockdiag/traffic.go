package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// Look tells what goes on in the TCP connections that the processes have accepted at the addresses, given as their
// listeners are bound. A connection is quiet when for longer than idle no data came or went; anything from a second on
// is sensible for idle, since a client that was just accepted has to get as much time to ask. A process that has gone
// has no connections.
//
// Look needs no help of the app, and so it can be wrong where requests and answers do not take turns:
//
//	an answer that pauses longer than idle, such as an event stream   is idle
//	HTTP/2 with one request answered and another one pending          is idle
//	an upload that pauses after the server has sent something         is idle
//	a client whose last word needs no answer: a logger, WebSocket     is busy until it closes
//	a request that was begun and never finished                       is busy until the app gives up on it
//	a client that has left without waiting for its answer             is busy until the app has noticed
//
// It counts what was accepted, and is right about the whole only if nothing waits in a queue: read the queues first and
// Look afterwards, so that a connection accepted in between is counted here. Connections to unix sockets have no such
// record in the kernel and are not looked at: there Connections is all that can be known.
//
// Look needs the right to look into the processes: their user's, or root's. It takes about 60 ms for 10,000
// connections, as Connections does, nearly all of it for the list of what the processes have open. Processes with up to 100 sockets
// are cheap where this process may also duplicate them (pidfd_getfd): then the kernel need not list all connections of the machine.
func Look(pids []int, addresses []netip.AddrPort, idle time.Duration) (Traffic, error) {
	o, err := Observe(pids, addresses)
	if err != nil {
		return Traffic{}, err
	}
	return o.Traffic(idle), nil
}

// OpenAt counts the TCP connections that the processes have accepted at each of the addresses, as Connections does.
func OpenAt(pids []int, addresses []netip.AddrPort) ([]int, error) {
	o, err := Observe(pids, addresses)
	if err != nil {
		return nil, err
	}
	return o.openAt(addresses), nil
}

// eachAccepted calls visit with each TCP connection to the addresses that somebody has accepted.
func eachAccepted(addresses []netip.AddrPort, extensions uint8, visit func(at inetPlace, inode uint64, message []byte)) error {
	query := inetQuery{protocol: unix.IPPROTO_TCP, states: connectedStates, extensions: extensions}
	return query.eachAt(addresses, func(at inetPlace, s inetSocket, message []byte) {
		if s.inode != 0 {
			visit(at, s.inode, message)
		}
	})
}

// Owed counts the TCP connections, accepted at the addresses by whomever, whose client has connected or sent something within that time and has
// got nothing since. It needs no right, and lists all connections of the machine, which takes a millisecond or more.
func Owed(addresses []netip.AddrPort, within time.Duration) (owed int, err error) {
	if len(addresses) == 0 {
		return 0, nil
	}
	err = eachAccepted(addresses, 1<<(diagInfo-1), func(_ inetPlace, _ uint64, message []byte) {
		if parseExchange(message).owes(within) {
			owed++
		}
	})
	return owed, err
}

type activity int

const (
	idling activity = iota
	working
	unclear
)

func (t *Traffic) add(a activity) {
	t.Open++
	switch a {
	case working:
		t.Busy++
	case unclear:
		t.Unclear++
	}
}

// exchange is the kernel's record of what came and went on a connection.
type exchange struct {
	state            uint8
	keepalive        bool   // keepalive probes are on
	unread, unsent   uint32 // bytes: the app's to read, and the client's to acknowledge
	segmentsIn       uint32 // with data
	segmentsOut      uint32
	received, sent   time.Duration // ago: the last data; the handshake if there was none
	acked            time.Duration // ago: the client's last acknowledgement
	roundTripAtLeast time.Duration
}

const diagTimerKeepalive = 2 // idiag_timer in inet_sk_diag_fill

// parseExchange leaves out what the kernel did not send: nothing is the record of a connection that is used right now.
func parseExchange(message []byte) exchange {
	ne := binary.NativeEndian
	e := exchange{
		state:     message[1],
		keepalive: message[2] == diagTimerKeepalive,
		unread:    ne.Uint32(message[56:]),
		unsent:    ne.Uint32(message[60:]),
	}
	var layout unix.TCPInfo
	info := diagAttribute(message[diagMessageSize:], diagInfo)
	if len(info) < int(unsafe.Offsetof(layout.Delivery_rate)) {
		return e
	}
	ago := func(offset uintptr) time.Duration { return time.Duration(ne.Uint32(info[offset:])) * time.Millisecond }
	e.received = ago(unsafe.Offsetof(layout.Last_data_recv))
	e.sent = ago(unsafe.Offsetof(layout.Last_data_sent))
	e.acked = ago(unsafe.Offsetof(layout.Last_ack_recv))
	e.roundTripAtLeast = time.Duration(ne.Uint32(info[unsafe.Offsetof(layout.Min_rtt):])) * time.Microsecond
	e.segmentsIn = ne.Uint32(info[unsafe.Offsetof(layout.Data_segs_in):])
	e.segmentsOut = ne.Uint32(info[unsafe.Offsetof(layout.Data_segs_out):])
	return e
}

// firstRequestAtMost is how many segments a client sends until its first request is complete: with TLS 1.3 one or two
// hellos, its end of the handshake, and the request; a connection preface and settings with HTTP/2.
const firstRequestAtMost = 6

func (e exchange) activity(idle time.Duration) activity {
	switch {
	case e.unreadData() > 0, e.unsent > 0, min(e.received, e.sent) <= idle:
		return working
	case e.segmentsIn == 0, e.saidAll():
		return idling
	case e.segmentsOut == 0, e.received < e.sent:
		return working
	case e.received == e.sent && !e.sentLast():
		return unclear
	case e.segmentsIn > 1 && e.segmentsIn <= firstRequestAtMost:
		return unclear
	}
	return idling
}

// owes tells whether the app has yet to answer what came within that time, or is about to.
func (e exchange) owes(within time.Duration) bool {
	return e.received < within && !e.saidAll() && (e.segmentsOut == 0 || e.received < e.sent || e.unreadData() > 0)
}

// unreadData leaves out a FIN, which takes a number in the sequence (tcp_diag_get_info in net/ipv4/tcp_diag.c).
func (e exchange) unreadData() uint32 {
	if e.state == unix.BPF_TCP_CLOSE_WAIT && e.unread > 0 {
		return e.unread - 1
	}
	return e.unread
}

// saidAll tells whether the app has closed its direction.
func (e exchange) saidAll() bool {
	switch e.state {
	case unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2, unix.BPF_TCP_CLOSING, unix.BPF_TCP_LAST_ACK:
		return true
	}
	return false
}

const (
	// tickAtMost is the longest of the kernel's clock ticks, at CONFIG_HZ=100.
	tickAtMost = 10 * time.Millisecond
	// acknowledgedWithin is how long a client keeps an acknowledgement back: 500 ms at most (RFC 9293, 3.8.6.3), and
	// the way. The shortest keepalive is the same second.
	acknowledgedWithin = time.Second
)

// sentLast tells whether of data that came and went in the same tick the app's was the last. Then the client
// acknowledges it, mostly later; what it acknowledges after a request that came last is only a keepalive probe. And
// where the way takes more than a tick no request follows an answer within one.
func (e exchange) sentLast() bool {
	later := e.received - e.acked
	return later > 0 && (!e.keepalive || later < acknowledgedWithin) || e.roundTripAtLeast > tickAtMost
}
