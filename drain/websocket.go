package drain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// upgradesToWebSocket reports whether a request with this header asks for a WebSocket.
func upgradesToWebSocket(header http.Header) bool {
	for _, line := range header.Values("Upgrade") {
		for protocol := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

// goingAway is the close frame with the status 1001 (RFC 6455, sections 5.5.1 and 7.4.1).
var goingAway = []byte{0x88, 2, 1001 >> 8, 1001 & 0xff}

// errCloseSent is the error of a message that would follow the close frame. It is net.ErrClosed too, which libraries take for
// an agreed end: coder/websocket then waits for the client's close frame.
var errCloseSent = fmt.Errorf("cannot write: the client was told to leave: %w: %w", ErrDraining, net.ErrClosed)

// closeFrameTimeout bounds how long a handler waits in Read for a client that was sent the close frame. The client's host
// may be asleep or gone, which the kernel notices only after hours. A client that wakes up later can still read the close
// frame.
const closeFrameTimeout = 3 * time.Second

// peerCloseTimeout bounds how long a client may take to close its side after the handler has closed the connection.
const peerCloseTimeout = 2 * time.Second

// hijacked is a connection that a handler has taken over from net/http. If it is a WebSocket, goAway tells the client to
// leave, whatever library the handler uses.
type hijacked struct {
	net.Conn
	websocket bool
	since     time.Time
	ended     func(*hijacked)

	reading      sync.Mutex
	readBounded  bool      // the close frame was written, so reads are bounded
	readDeadline time.Time // the handler's own
	ownDeadline  bool      // the deadline in force is closeFrameTimeout, not the handler's
	timedOut     bool      // the last read ended by that deadline

	mu        sync.Mutex // held during each write
	frames    webSocketFrames
	due       func(*webSocketFrames) bool // reports whether the close frame may come here; nil if none was requested
	closeSent bool                        // the close frame was written: no frame may follow

	once   sync.Once
	closed chan struct{}
	forced bool // the drain has closed the connection, not the handler
}

// newHijacked returns a connection that calls ended when its handler closes it before goAway. With preamble, the handler
// first writes the head of the HTTP response.
func newHijacked(conn net.Conn, websocket, preamble bool, ended func(*hijacked)) *hijacked {
	return &hijacked{
		Conn:      conn,
		websocket: websocket,
		since:     time.Now(),
		ended:     ended,
		frames:    webSocketFrames{preamble: preamble},
		closed:    make(chan struct{}),
	}
}

// Read waits for closeFrameTimeout at most, once the close frame was written. The time starts again with each Read, because
// a handler with other work to finish may come to read late.
func (h *hijacked) Read(p []byte) (int, error) {
	h.boundRead(func() {})
	n, err := h.Conn.Read(p)
	h.reading.Lock()
	defer h.reading.Unlock()
	h.timedOut = n == 0 && h.ownDeadline && errors.Is(err, os.ErrDeadlineExceeded)
	return n, err
}

// boundRead sets the deadline again after a change, if reads are bounded.
func (h *hijacked) boundRead(change func()) {
	h.reading.Lock()
	defer h.reading.Unlock()
	change()
	if !h.readBounded {
		return
	}
	deadline := time.Now().Add(closeFrameTimeout)
	h.ownDeadline = h.readDeadline.IsZero() || h.readDeadline.After(deadline)
	if !h.ownDeadline {
		deadline = h.readDeadline
	}
	_ = h.Conn.SetReadDeadline(deadline) // it fails on a closed connection
}

// SetReadDeadline cannot exceed closeFrameTimeout once the close frame was written.
func (h *hijacked) SetReadDeadline(t time.Time) (err error) {
	h.boundRead(func() {
		h.readDeadline = t
		err = h.Conn.SetReadDeadline(t)
	})
	return err
}

func (h *hijacked) SetDeadline(t time.Time) error {
	return errors.Join(h.SetReadDeadline(t), h.SetWriteDeadline(t))
}

// Write follows the frames, and writes the close frame where it is due. After that nothing reaches the client: control
// frames, such as the reply to the client's close frame, are discarded as if written, and messages get an error.
func (h *hijacked) Write(p []byte) (int, error) {
	if !h.websocket {
		return h.Conn.Write(p)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closeSent {
		return h.discard(p)
	}
	part := p
	if h.due != nil {
		part = p[:h.frames.until(p, h.due)]
	}
	n, err := h.Conn.Write(part)
	h.frames.follow(p[:n])
	if err != nil || !h.writeCloseFrame() {
		return n, err
	}
	swallowed, err := h.discard(p[n:])
	return n + swallowed, err
}

func (h *hijacked) discard(p []byte) (n int, err error) {
	for n < len(p) {
		if h.frames.between() && !controlFrame(p[n]) {
			return n, errCloseSent
		}
		n += h.frames.advance(p[n:])
	}
	return n, nil
}

// writeCloseFrame writes the close frame if it is due. If the write fails, the connection is broken, and the handler's
// Read says so.
func (h *hijacked) writeCloseFrame() bool {
	if h.due == nil || !h.due(&h.frames) {
		return false
	}
	h.closeSent = true
	_, _ = h.Conn.Write(goingAway)
	h.boundRead(func() { h.readBounded = true })
	return true
}

// requestClose writes the close frame where it is due: now, or in a later Write.
func (h *hijacked) requestClose(due func(*webSocketFrames) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closeSent || !h.websocket {
		return
	}
	h.due = due
	if h.due(&h.frames) {
		h.SetWriteDeadline(time.Time{}) // the deadline that the library set last may have passed
		h.writeCloseFrame()
	}
}

// CloseWrite is for handlers that forward the end of a stream too, such as httputil.ReverseProxy.
func (h *hijacked) CloseWrite() error {
	if conn, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes only the writing side once the close frame was written; goAway does the rest. If the connection were closed
// while the client's reply arrives, the kernel would reset it, and the client might never read the close frame.
func (h *hijacked) Close() error {
	if h.halfClose() {
		h.once.Do(func() { close(h.closed) })
		return nil
	}
	defer h.once.Do(func() {
		close(h.closed)
		if !h.isReadBounded() {
			h.ended(h) // otherwise goAway waits for closed, and reports how the connection ended
		}
	})
	return h.Conn.Close()
}

// halfClose does not wait for a Write that is in progress: a handler that closes meanwhile wants to end that Write.
func (h *hijacked) halfClose() bool {
	if !h.mu.TryLock() {
		return false
	}
	defer h.mu.Unlock()
	return h.closeSent && h.CloseWrite() == nil
}

// goAway tells the client to leave, and waits until the handler has closed the connection, which it does when its
// library has read the client's close frame. The close frame is written between two messages, or inside a message that
// takes longer than half of the time. If the client sends nothing for closeFrameTimeout, the handler's Read times out, and
// handlers then close. When ctx is done, the connection is cut.
func (h *hijacked) goAway(ctx context.Context) error {
	defer context.AfterFunc(ctx, h.cut)()
	defer h.Conn.Close()
	h.requestClose((*webSocketFrames).betweenMessages)
	select {
	case <-h.closed:
	case <-time.After(half(ctx)):
		h.requestClose((*webSocketFrames).betweenFragments)
	}
	<-h.closed
	if h.forced {
		return context.Cause(ctx)
	}
	if h.hasTimedOut() {
		return nil
	}
	h.Conn.SetReadDeadline(time.Now().Add(peerCloseTimeout))
	io.Copy(io.Discard, h.Conn)
	return nil
}

func (h *hijacked) kind() string {
	if h.websocket {
		return "WebSocket"
	}
	return "connection"
}

func (h *hijacked) isReadBounded() bool {
	h.reading.Lock()
	defer h.reading.Unlock()
	return h.readBounded
}

func (h *hijacked) hasTimedOut() bool {
	h.reading.Lock()
	defer h.reading.Unlock()
	return h.timedOut
}

// half is half of the time that ctx has left.
func half(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return math.MaxInt64
	}
	return time.Until(deadline) / 2
}

func (h *hijacked) cut() {
	h.once.Do(func() {
		defer close(h.closed)
		h.forced = true
		if secured, ok := h.Conn.(*tls.Conn); ok {
			secured.NetConn().Close() // tls.Conn.Close may wait five seconds to write its alert
		}
	})
	h.Conn.Close()
}

// webSocketFrames follows the WebSocket frames that a server writes (RFC 6455, section 5.2), however they are split.
type webSocketFrames struct {
	preamble   bool     // the head of the HTTP response is not complete
	last       uint32   // the last four bytes of the head
	header     [10]byte // of the current frame
	have       int      // bytes of the header
	payload    uint64   // bytes of the payload that are missing
	fragmented bool     // the message has further fragments
	ended      bool     // the library itself has written a close frame
}

// between reports whether a frame may begin here.
func (f *webSocketFrames) between() bool { return !f.preamble && f.have == 0 }

func (f *webSocketFrames) betweenFragments() bool { return f.between() && !f.ended }

func (f *webSocketFrames) betweenMessages() bool { return f.betweenFragments() && !f.fragmented }

// until returns how many bytes of p come before the first place that is due.
func (f webSocketFrames) until(p []byte, due func(*webSocketFrames) bool) (n int) {
	for n < len(p) && !due(&f) {
		n += f.advance(p[n:])
	}
	return n
}

func (f *webSocketFrames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.advance(p):]
	}
}

// advance follows p up to the end of the current frame.
func (f *webSocketFrames) advance(p []byte) int {
	if f.preamble {
		return f.advancePreamble(p)
	}
	n := 0
	for ; n < len(p) && f.have < f.headerLength(); n++ {
		f.header[f.have] = p[n]
		if f.have++; f.have == f.headerLength() {
			f.begin()
		}
	}
	if f.have < f.headerLength() {
		return n
	}
	part := min(f.payload, uint64(len(p)-n))
	if f.payload -= part; f.payload == 0 {
		f.have = 0
	}
	return n + int(part)
}

func (f *webSocketFrames) advancePreamble(p []byte) int {
	for i, b := range p {
		if f.last = f.last<<8 | uint32(b); f.last == '\r'<<24|'\n'<<16|'\r'<<8|'\n' {
			f.preamble = false
			return i + 1
		}
	}
	return len(p)
}

func (f *webSocketFrames) headerLength() int {
	if f.have < 2 {
		return 2
	}
	switch f.header[1] & 0x7f {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// begin is called when the header is complete.
func (f *webSocketFrames) begin() {
	f.payload = uint64(f.header[1] & 0x7f)
	if extended := f.header[2:f.have]; len(extended) > 0 {
		f.payload = 0
		for _, b := range extended {
			f.payload = f.payload<<8 | uint64(b)
		}
	}
	switch {
	case !controlFrame(f.header[0]):
		f.fragmented = f.header[0]&0x80 == 0
	case f.header[0]&0xf == 8:
		f.ended = true
	}
}

// controlFrame reports whether a frame with this first byte is a control frame.
func controlFrame(first byte) bool { return first&0x8 != 0 }

// hijacks has the connections that handlers have taken over.
type hijacks struct {
	mu         sync.Mutex
	conns      map[*hijacked]struct{}
	taking     int             // connections that are just being taken over
	closing    context.Context // nil until goAway
	forced     int
	unanswered int // clients that have not replied to the close frame
	changed    wakeup
}

func newHijacks() *hijacks {
	return &hijacks{conns: map[*hijacked]struct{}{}, changed: newWakeup()}
}

// hijack takes the connection over from w. The reader keeps its buffered bytes; the reader and the writer use the returned
// connection. If goAway has begun, it closes this connection too.
func (h *hijacks) hijack(w http.Hijacker, websocket, preamble bool) (net.Conn, *bufio.ReadWriter, error) {
	h.addTaking(1)
	defer h.addTaking(-1)
	conn, buffered, err := w.Hijack()
	if err != nil {
		return nil, nil, err
	}
	taken := h.add(conn, websocket, preamble)
	buffered.Writer.Reset(taken)
	held, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // cannot fail for the bytes that are buffered
	buffered.Reader.Reset(io.MultiReader(bytes.NewReader(bytes.Clone(held)), taken))
	_, _ = buffered.Reader.Peek(len(held)) // libraries call Buffered
	return taken, buffered, nil
}

// addTaking makes goAway wait for connections that are no longer the server's and not yet the handler's.
func (h *hijacks) addTaking(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taking += n
	h.changed.wake()
}

func (h *hijacks) add(conn net.Conn, websocket, preamble bool) *hijacked {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := newHijacked(conn, websocket, preamble, h.remove)
	h.conns[taken] = struct{}{}
	if h.closing != nil {
		go h.closeOne(h.closing, taken, 0)
	}
	return taken
}

func (h *hijacks) remove(conn *hijacked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, conn)
	h.changed.wake()
}

func (h *hijacks) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// goAway tells all clients to leave and waits for them, until ctx is done at most. It spreads the close frames evenly over
// at most half of the time, so that the clients do not all reconnect at once.
func (h *hijacks) goAway(ctx context.Context, spread time.Duration) error {
	h.closeAll(ctx, spread)
	for !h.gone() {
		<-h.changed
	}
	if n := h.forcedCount(); n > 0 {
		return fmt.Errorf("cut connections (%d): %w", n, context.Cause(ctx))
	}
	return nil
}

// forcedCount is the number of connections that were cut.
func (h *hijacks) forcedCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.forced
}

// unansweredCount is the number of clients that did not reply to the close frame in time.
func (h *hijacks) unansweredCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.unanswered
}

func (h *hijacks) closeAll(ctx context.Context, spread time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closing = ctx
	interval := min(spread, half(ctx)) / time.Duration(max(len(h.conns), 1))
	delay := time.Duration(0)
	for conn := range h.conns {
		go h.closeOne(ctx, conn, delay)
		delay += interval
	}
}

// waitedFor describes the connections that are still open, or is empty.
func (h *hijacks) waitedFor() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing == nil || len(h.conns) == 0 {
		return ""
	}
	var oldest *hijacked
	for conn := range h.conns {
		if oldest == nil || conn.since.Before(oldest.since) {
			oldest = conn
		}
	}
	return fmt.Sprintf("%d hijacked connections, the oldest a %s from %v, open for %v",
		len(h.conns), oldest.kind(), oldest.RemoteAddr(), time.Since(oldest.since).Round(time.Second))
}

func (h *hijacks) gone() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns) == 0 && h.taking == 0
}

func (h *hijacks) closeOne(ctx context.Context, conn *hijacked, delay time.Duration) {
	defer h.remove(conn)
	select {
	case <-time.After(delay):
	case <-conn.closed:
	case <-ctx.Done():
	}
	err := conn.goAway(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.forced++
	} else if conn.hasTimedOut() {
		h.unanswered++
	}
}
