package farewell

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headWithin  = 10 * time.Second // from its first byte, a request's head is complete
	dialWithin  = 5 * time.Second  // somebody answers again who was not there
	dialAgain   = 20 * time.Millisecond
	lingering   = time.Second // for a client to close after its answer
	copyAtATime = 32 << 10
)

// keeper serves the connections that the app has closed, each in a goroutine of its own that ends with the connection.
type keeper struct {
	Keeping
	ctx     context.Context
	f       *Farewell
	slots   chan struct{} // one for each relay
	relays  sync.WaitGroup
	buffers sync.Pool
}

func newKeeper(ctx context.Context, f *Farewell, how Keeping) *keeper {
	if how.Relays == 0 {
		how.Relays = 256
	}
	if how.Idle == 0 {
		how.Idle = time.Minute
	}
	if how.Patient == nil {
		how.Patient = ctx
	}
	if how.Parting == nil {
		how.Parting = ctx
	}
	k := &keeper{Keeping: how, ctx: ctx, f: f, slots: make(chan struct{}, how.Relays)}
	k.buffers.New = func() any { return new([copyAtATime]byte) }
	return k
}

// serve takes the descriptor of a held connection.
func (k *keeper) serve(c *connection) {
	k.relays.Go(func() {
		end := k.last(c.held.fd, k.patience(c))
		k.f.announcer.descriptors.put()
		k.count(end)
		k.f.announcer.forget(c.cookie)
	})
}

// patience is how long a request is waited for. A client that was just answered may wait for the end, and as to all that is known it
// may as well be about to ask again.
func (k *keeper) patience(c *connection) time.Duration {
	if c.answered {
		return min(k.For, recently*time.Millisecond)
	}
	return k.For
}

// fate is how a kept connection ended.
type fate int

const (
	fateLeft fate = iota
	fateExpired
	fateRelayed
	fateCut
)

func (k *keeper) count(end fate) {
	k.f.mu.Lock()
	defer k.f.mu.Unlock()
	defer k.f.countKept()
	k.f.kept--
	switch r := &k.f.result; end {
	case fateLeft:
		r.Left++
	case fateExpired:
		r.Expired++
	case fateRelayed:
		r.Relayed++
	case fateCut:
		r.Cut++
	}
}

// last serves the last request of a connection, and closes it.
func (k *keeper) last(fd int, patience time.Duration) fate {
	// A server that had asked for a reset at its close does not get one for what it has not closed.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	file := os.NewFile(uintptr(fd), "kept")
	generic, err := net.FileConn(file)
	file.Close()
	client, ok := generic.(*net.TCPConn)
	if err != nil || !ok {
		return fateCut
	}
	defer client.Close()
	defer context.AfterFunc(k.ctx, func() { client.Close() })()
	if end, over := k.awaitRequest(client, patience); over {
		return end
	}
	if err := k.relay(client); err != nil {
		k.failed(fmt.Errorf("cannot relay the request of %s: %w", client.RemoteAddr(), err))
		return fateCut
	}
	return fateRelayed
}

func (k *keeper) failed(err error) {
	if k.Failed != nil {
		k.Failed(err)
	}
}

// awaitRequest waits for the first byte without a buffer: there may be thousands that wait.
func (k *keeper) awaitRequest(client *net.TCPConn, patience time.Duration) (fate, bool) {
	_ = client.SetReadDeadline(time.Now().Add(patience))
	waits, end := k.wait(client)
	defer end()
	parted := make(chan struct{})
	stop := context.AfterFunc(waits, func() {
		_ = client.SetReadDeadline(time.Now())
		close(parted)
	})
	n, err := peek(client)
	if !stop() {
		<-parted // its deadline is not one of the relay's
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// With thousands that end together it may have come between the timer and now.
		_ = client.SetReadDeadline(time.Time{})
		if n, err = peekNow(client); err == unix.EAGAIN {
			return fateExpired, true
		}
	}
	if k.ctx.Err() != nil {
		return fateExpired, true
	}
	if err != nil || n == 0 {
		return fateLeft, true
	}
	return 0, false
}

// wait gives a context that ends when the wait for a request does, for all or because others need the descriptor more.
func (k *keeper) wait(client *net.TCPConn) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(k.Parting)
	w := &waiting{since: silentSince(client), close: cancel}
	k.f.announcer.descriptors.add(w)
	return ctx, func() {
		k.f.announcer.descriptors.remove(w)
		cancel()
	}
}

func silentSince(client *net.TCPConn) time.Time {
	since := time.Now()
	raw, err := client.SyscallConn()
	if err != nil {
		return since
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			since = since.Add(-time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond)
		}
	})
	return since
}

// peek waits until there is something to read, and says how much of one byte: none at the end.
func peek(client *net.TCPConn) (n int, err error) {
	raw, err := client.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peeked error
	err = raw.Read(func(fd uintptr) bool {
		n, peeked = peekAt(fd)
		return peeked != unix.EAGAIN
	})
	return n, errors.Join(err, peeked)
}

func peekNow(client *net.TCPConn) (n int, err error) {
	raw, err := client.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peeked error
	err = raw.Control(func(fd uintptr) { n, peeked = peekAt(fd) })
	if err != nil {
		return 0, err
	}
	return n, peeked
}

func peekAt(fd uintptr) (int, error) {
	var one [1]byte
	n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n, err
}

// relay passes one request on, and the answer back.
func (k *keeper) relay(client *net.TCPConn) error {
	if err := k.slot(); err != nil {
		return err
	}
	defer func() { <-k.slots }()
	_ = client.SetReadDeadline(time.Now().Add(headWithin))
	in := bufio.NewReader(client)
	head, err := readHead(in)
	if err != nil {
		return err
	}
	// A server that does not want the body may close before it comes: it gets what is there in one piece.
	body, _ := in.Peek(in.Buffered())
	head = append(head, body...)
	_, _ = in.Discard(len(body))
	server, err := k.dial(cameInAt(client))
	if err != nil {
		return err
	}
	defer server.Close()
	defer context.AfterFunc(k.ctx, func() { server.Close() })()
	return k.exchange(client, in, server, head)
}

func (k *keeper) slot() error {
	select {
	case k.slots <- struct{}{}:
		return nil
	case <-k.ctx.Done():
		return k.ctx.Err()
	}
}

func cameInAt(client *net.TCPConn) netip.AddrPort {
	at := client.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// dial tries again: nothing was sent yet, and who serves may be about to be replaced, too.
func (k *keeper) dial(at netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(k.ctx, dialWithin)
	defer cancel()
	for {
		server, err := k.Dial(ctx, at)
		if err == nil {
			return server, nil
		}
		select {
		case <-time.After(dialAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// exchange ends with the answer. The server closes then, since the head says so, and the client is told so by the program
// for answers: the connection is still in the map.
func (k *keeper) exchange(client *net.TCPConn, in io.Reader, server net.Conn, head []byte) error {
	both := &pair{a: client, b: server, idle: k.Idle}
	both.touch()
	if _, err := server.Write(head); err != nil {
		return err
	}
	answered, err := k.bothWays(both, client, in, server)
	switch {
	case answered && err == nil:
		_ = client.CloseWrite()
		k.linger(client)
		return nil
	case answered && k.linger(client):
		return nil // a server may reset when it has answered, if it has not read all of a body
	}
	_ = client.SetLinger(0) // an answer without its end must not look like a whole one
	return cmp.Or(err, errNoAnswer)
}

// bothWays copies until the answer ends.
func (k *keeper) bothWays(both *pair, client *net.TCPConn, in io.Reader, server net.Conn) (answered bool, err error) {
	var body sync.WaitGroup
	body.Go(func() {
		if _, err := k.copy(both, server, in); err == nil {
			closeWrite(server)
		}
	})
	n, err := k.copy(both, client, server)
	// What is left of the body nobody wants any more.
	server.Close()
	_ = client.SetReadDeadline(time.Now())
	body.Wait()
	return n > 0, err
}

var errNoAnswer = errors.New("there was no answer")

// linger lets the client close first, which it does when it has the whole answer, and tells whether it did: who closes with
// something unread sends a reset, which can overtake the answer.
func (k *keeper) linger(client *net.TCPConn) bool {
	_ = client.SetReadDeadline(time.Now().Add(lingering))
	_, err := io.Copy(io.Discard, client)
	return err == nil
}

func closeWrite(c net.Conn) {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// copy moves what comes until its end.
func (k *keeper) copy(both *pair, to io.Writer, from io.Reader) (moved int64, err error) {
	buffer := k.buffers.Get().(*[copyAtATime]byte)
	defer k.buffers.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			both.touch()
			if _, err := to.Write(buffer[:n]); err != nil {
				return moved, err
			}
			moved += int64(n)
		}
		if err == io.EOF {
			return moved, nil
		}
		if err != nil {
			return moved, err
		}
	}
}

// pair ends both ways when nothing has moved in either for a time.
type pair struct {
	a, b net.Conn
	idle time.Duration

	mu      sync.Mutex
	touched time.Time
}

func (p *pair) touch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.touched) < p.idle/8 {
		return // setting a deadline costs as much as a read
	}
	p.touched = now
	_ = p.a.SetDeadline(now.Add(p.idle))
	_ = p.b.SetDeadline(now.Add(p.idle))
}
