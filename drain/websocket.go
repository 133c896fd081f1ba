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

// upgradesToWebSocket tells whether a request with this header asks for a WebSocket.
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

// errLeft is what a message comes to that would follow the close frame. Libraries take net.ErrClosed for an end that
// was agreed upon: coder/websocket goes on to wait for the client's echo.
var errLeft = fmt.Errorf("cannot write: the client was told to leave: %w: %w", ErrDraining, net.ErrClosed)

// mutePatience is for a client that was told to leave to say anything, while its handler does nothing but wait for that.
// Its host may be asleep or gone, which the kernel finds out after hours. What waits for it in its own kernel, the close
// frame included, it can read later still.
const mutePatience = 3 * time.Second

// farewell bounds the time in which a client that was told to leave may end a connection that its handler has closed.
const farewell = 2 * time.Second

// hijacked is a connection that a handler took from net/http. If it is a WebSocket, goAway tells the client to leave,
// whatever library the handler uses.
type hijacked struct {
	net.Conn
	websocket bool
	since     time.Time
	ended     func(*hijacked)

	reading sync.Mutex
	told    bool      // the client has to leave, and reads are bounded
	until   time.Time // the handler's own deadline for reads
	bounded bool      // the deadline is not the handler's
	mute    bool      // the last read has ended by it

	mu     sync.Mutex // is held while something is written
	frames webSocketFrames
	due    func(*webSocketFrames) bool // tells where the close frame may come; nil as long as the client may stay
	left   bool                        // the close frame was written: nothing may follow

	once    sync.Once
	closed  chan struct{}
	overdue bool // it was not the handler who closed
}

// newHijacked makes a connection of which ended is called when it was closed by its handler alone, and not by goAway.
// With preamble, what is written first is the response that goes before the frames.
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

// Read bounds the wait for a client that was told to leave. A handler that has other work to finish comes to read late,
// when the echo may be there already: so the time begins anew with each Read.
func (h *hijacked) Read(p []byte) (int, error) {
	h.boundRead(func() {})
	n, err := h.Conn.Read(p)
	h.reading.Lock()
	defer h.reading.Unlock()
	h.mute = n == 0 && h.bounded && errors.Is(err, os.ErrDeadlineExceeded)
	return n, err
}

// boundRead sets the deadline anew after a change, if the client was told to leave.
func (h *hijacked) boundRead(change func()) {
	h.reading.Lock()
	defer h.reading.Unlock()
	change()
	if !h.told {
		return
	}
	deadline := time.Now().Add(mutePatience)
	h.bounded = h.until.IsZero() || h.until.After(deadline)
	if !h.bounded {
		deadline = h.until
	}
	_ = h.Conn.SetReadDeadline(deadline) // it fails on a closed connection
}

// SetReadDeadline keeps the handler from waiting longer for a client that was told to leave.
func (h *hijacked) SetReadDeadline(t time.Time) (err error) {
	h.boundRead(func() {
		h.until = t
		err = h.Conn.SetReadDeadline(t)
	})
	return err
}

func (h *hijacked) SetDeadline(t time.Time) error {
	return errors.Join(h.SetReadDeadline(t), h.SetWriteDeadline(t))
}

// Write follows the frames, and puts the close frame where it is due. After that nothing reaches the client: what
// belongs to the end of the conversation, such as the echo of the client's close frame, is taken for written, and
// messages are refused.
func (h *hijacked) Write(p []byte) (int, error) {
	if !h.websocket {
		return h.Conn.Write(p)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return h.swallow(p)
	}
	part := p
	if h.due != nil {
		part = p[:h.frames.until(p, h.due)]
	}
	n, err := h.Conn.Write(part)
	h.frames.follow(p[:n])
	if err != nil || !h.say() {
		return n, err
	}
	swallowed, err := h.swallow(p[n:])
	return n + swallowed, err
}

func (h *hijacked) swallow(p []byte) (n int, err error) {
	for n < len(p) {
		if h.frames.between() && !controlFrame(p[n]) {
			return n, errLeft
		}
		n += h.frames.advance(p[n:])
	}
	return n, nil
}

// say writes the close frame if it is due. If that fails the connection is of no use any more, which the handler
// learns by reading.
func (h *hijacked) say() bool {
	if h.due == nil || !h.due(&h.frames) {
		return false
	}
	h.left = true
	_, _ = h.Conn.Write(goingAway)
	h.boundRead(func() { h.told = true })
	return true
}

// leave has the close frame written where it is due, now or by a later Write.
func (h *hijacked) leave(due func(*webSocketFrames) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left || !h.websocket {
		return
	}
	h.due = due
	if h.due(&h.frames) {
		h.SetWriteDeadline(time.Time{}) // the library's last one may have passed long ago
		h.say()
	}
}

// CloseWrite is for handlers that forward what they read, and its end too, such as httputil.ReverseProxy.
func (h *hijacked) CloseWrite() error {
	if conn, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends only the writing side if the client was told to leave, and goAway does the rest: to close a connection
// while the client's echo comes in would reset it, and the client might never read what it was told.
func (h *hijacked) Close() error {
	if h.endsPolitely() {
		h.once.Do(func() { close(h.closed) })
		return nil
	}
	defer h.once.Do(func() {
		close(h.closed)
		if !h.isTold() {
			h.ended(h) // else goAway waits for it, and tells how it has ended
		}
	})
	return h.Conn.Close()
}

// endsPolitely does not wait for a Write that is under way: whoever closes meanwhile wants to end it.
func (h *hijacked) endsPolitely() bool {
	if !h.mu.TryLock() {
		return false
	}
	defer h.mu.Unlock()
	return h.left && h.CloseWrite() == nil
}

// goAway tells the client to leave, and waits until the handler has closed the connection, which it does when its
// library has read the client's echo. The client is told between two messages, or inside one that takes more than half
// of the time. A client that says nothing for mutePatience has its handler's read time out, on which handlers close. When
// ctx is done the connection is cut.
func (h *hijacked) goAway(ctx context.Context) error {
	defer context.AfterFunc(ctx, h.cut)()
	defer h.Conn.Close()
	h.leave((*webSocketFrames).betweenMessages)
	select {
	case <-h.closed:
	case <-time.After(half(ctx)):
		h.leave((*webSocketFrames).betweenFragments)
	}
	<-h.closed
	if h.overdue {
		return context.Cause(ctx)
	}
	if h.isMute() {
		return nil
	}
	h.Conn.SetReadDeadline(time.Now().Add(farewell))
	io.Copy(io.Discard, h.Conn)
	return nil
}

func (h *hijacked) kind() string {
	if h.websocket {
		return "WebSocket"
	}
	return "connection"
}

func (h *hijacked) isTold() bool {
	h.reading.Lock()
	defer h.reading.Unlock()
	return h.told
}

func (h *hijacked) isMute() bool {
	h.reading.Lock()
	defer h.reading.Unlock()
	return h.mute
}

// half of the time that is left of ctx.
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
		h.overdue = true
		if secured, ok := h.Conn.(*tls.Conn); ok {
			secured.NetConn().Close() // tls.Conn.Close may wait five seconds to write its alert
		}
	})
	h.Conn.Close()
}

// webSocketFrames follows the WebSocket frames that a server writes (RFC 6455, section 5.2), wherever they are cut.
type webSocketFrames struct {
	preamble   bool     // what comes first is the head of an HTTP response
	last       uint32   // the last four bytes of it
	header     [10]byte // of the frame under way
	have       int      // bytes of the header
	payload    uint64   // bytes that are to come still
	fragmented bool     // more fragments of a message are to come
	ended      bool     // the close frame was the library's own
}

// between tells whether a frame may begin.
func (f *webSocketFrames) between() bool { return !f.preamble && f.have == 0 }

func (f *webSocketFrames) betweenFragments() bool { return f.between() && !f.ended }

func (f *webSocketFrames) betweenMessages() bool { return f.betweenFragments() && !f.fragmented }

// until returns how much of p comes before the first place that is due.
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

// advance follows p to the end of the frame at most.
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

// controlFrame tells whether a frame that begins so is none of a message.
func controlFrame(first byte) bool { return first&0x8 != 0 }

// hijacks knows the connections that handlers have taken.
type hijacks struct {
	mu      sync.Mutex
	conns   map[*hijacked]struct{}
	taking  int             // connections that are just being taken
	leaving context.Context // nil as long as they may stay
	overdue int
	mute    int // clients that have not answered
	changed wakeup
}

func newHijacks() *hijacks {
	return &hijacks{conns: map[*hijacked]struct{}{}, changed: newWakeup()}
}

// hijack takes the connection from w. The reader keeps what it holds already, and reads and writes go to the connection
// that is returned. If goAway has begun, it concerns this one as well.
func (h *hijacks) hijack(w http.Hijacker, websocket, preamble bool) (net.Conn, *bufio.ReadWriter, error) {
	h.take(1)
	defer h.take(-1)
	conn, buffered, err := w.Hijack()
	if err != nil {
		return nil, nil, err
	}
	taken := h.add(conn, websocket, preamble)
	buffered.Writer.Reset(taken)
	held, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // as much as there is cannot fail
	buffered.Reader.Reset(io.MultiReader(bytes.NewReader(bytes.Clone(held)), taken))
	_, _ = buffered.Reader.Peek(len(held)) // libraries ask Buffered how much it holds
	return taken, buffered, nil
}

// take keeps goAway waiting for a connection that is the server's no more and the handler's not yet.
func (h *hijacks) take(n int) {
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
	if h.leaving != nil {
		go h.tell(h.leaving, taken, 0)
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

// goAway tells all clients to leave and waits for them, until ctx is done at most. It spreads the telling evenly over
// half of the time at most, so that they do not come back all at once.
func (h *hijacks) goAway(ctx context.Context, spread time.Duration) error {
	h.begin(ctx, spread)
	for !h.gone() {
		<-h.changed
	}
	if n := h.cut(); n > 0 {
		return fmt.Errorf("cut connections (%d): %w", n, context.Cause(ctx))
	}
	return nil
}

// cut tells how many connections were cut.
func (h *hijacks) cut() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.overdue
}

// silent tells how many clients were not waited for any longer.
func (h *hijacks) silent() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mute
}

func (h *hijacks) begin(ctx context.Context, spread time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = ctx
	interval := min(spread, half(ctx)) / time.Duration(max(len(h.conns), 1))
	delay := time.Duration(0)
	for conn := range h.conns {
		go h.tell(ctx, conn, delay)
		delay += interval
	}
}

// waitedFor describes those that have not left yet, or is empty.
func (h *hijacks) waitedFor() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving == nil || len(h.conns) == 0 {
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

func (h *hijacks) tell(ctx context.Context, conn *hijacked, delay time.Duration) {
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
		h.overdue++
	} else if conn.isMute() {
		h.mute++
	}
}
