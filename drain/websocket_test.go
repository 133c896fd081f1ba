package drain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	continuation, text, bye, ping, pong = 0, 1, 8, 9, 10
	final                               = 0x80
)

// frameOf is a frame as a server writes it.
func frameOf(first byte, length int) []byte {
	f := []byte{first}
	switch {
	case length < 126:
		f = append(f, byte(length))
	case length < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(length))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 127), uint64(length))
	}
	return append(f, bytes.Repeat([]byte{'x'}, length)...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// tape is a connection that keeps what is written.
type tape struct {
	net.Conn
	stream []byte
}

func (c *tape) Write(p []byte) (int, error) {
	c.stream = append(c.stream, p...)
	return len(p), nil
}

func (c *tape) SetWriteDeadline(time.Time) error { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }

func TestCloseFrameComesBetweenMessages(t *testing.T) {
	message, long, rest := frameOf(final|text, 300), frameOf(final|text, 1<<16), frameOf(final|continuation, 7)
	first, pinged := frameOf(text, 5), frameOf(final|ping, 4)
	own := join([]byte{final | bye, 2}, []byte{3, 232})
	head := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
	for name, tt := range map[string]struct {
		preamble      bool
		before, after [][]byte
		stream        []byte
		refused       int // the write of after that is refused
	}{
		"at once":                {false, [][]byte{message}, [][]byte{message}, join(message, goingAway), 0},
		"before the first":       {false, nil, [][]byte{message}, goingAway, 0},
		"after a long frame":     {false, [][]byte{long[:5]}, [][]byte{long[5:], message}, join(long, goingAway), 1},
		"after the frame":        {false, [][]byte{message[:2]}, [][]byte{message[2:9], message[9:], message}, join(message, goingAway), 2},
		"after the last of them": {false, [][]byte{first}, [][]byte{pinged, rest, rest}, join(first, pinged, rest, goingAway), 2},
		"inside of a write":      {false, [][]byte{message[:9]}, [][]byte{join(message[9:], message)}, join(message, goingAway), 0},
		"after the response":     {true, [][]byte{head[:9]}, [][]byte{head[9:], message}, join(head, goingAway), 1},
		"before the response":    {true, nil, [][]byte{join(head, message)}, join(head, goingAway), 0},
		"not after another":      {false, [][]byte{own}, nil, own, -1},
		"not inside of another":  {false, [][]byte{own[:3]}, [][]byte{own[3:]}, own, -1},
		"instead of the echo":    {false, nil, [][]byte{pinged, own[:1], own[1:], frameOf(final|pong, 0)}, goingAway, -1},
	} {
		t.Run(name, func(t *testing.T) {
			conn := &tape{}
			h := newHijacked(conn, true, tt.preamble, nil)
			for _, p := range tt.before {
				if n, err := h.Write(p); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
			h.requestClose((*webSocketFrames).betweenMessages)
			for i, p := range tt.after {
				_, err := h.Write(p)
				if refused := errors.Is(err, net.ErrClosed) && errors.Is(err, ErrDraining); refused != (i == tt.refused) || !refused && err != nil {
					t.Errorf("write %d: %v", i, err)
				}
			}
			if !bytes.Equal(conn.stream, tt.stream) {
				t.Errorf("%.400q was written, not %.400q", conn.stream, tt.stream)
			}
		})
	}
}

// conversation makes frames that a server may write, one for each byte, and tells where each ends, and whether a
// message ends there.
func conversation(script []byte) (stream []byte, ends map[int]bool) {
	ends = map[int]bool{0: true}
	lengths := []int{0, 1, 2, 100, 125, 126, 127, 300, 65535, 65536}
	fragmented := false
	for _, b := range script {
		first := []byte{final | text, text, final | ping, final | pong}[b%4]
		if first&8 == 0 {
			if fragmented {
				first &^= 0xf
			}
			fragmented = first&final == 0
		}
		length := lengths[int(b/4)%len(lengths)]
		if first&8 != 0 {
			length = min(length, 125)
		}
		stream = append(stream, frameOf(first, length)...)
		ends[len(stream)] = !fragmented
	}
	return stream, ends
}

func FuzzStreamStaysWhole(f *testing.F) {
	f.Add([]byte{0, 1, 6, 0, 17, 32, 37, 38, 36}, []byte{0, 1, 2, 30, 255}, byte(2), true)
	f.Add([]byte{0, 1, 6, 0, 17, 32, 37, 38, 36}, []byte{0, 1, 2, 30, 255}, byte(3), false)
	f.Add([]byte{33, 33, 32, 32}, []byte{200, 200, 250, 250, 250, 250}, byte(2), true)
	f.Fuzz(func(t *testing.T, script, cuts []byte, at byte, patient bool) {
		stream, ends := conversation(script[:min(len(script), 50)])
		due := (*webSocketFrames).betweenFragments
		if patient {
			due = (*webSocketFrames).betweenMessages
		}
		conn := &tape{}
		h := newHijacked(conn, true, false, nil)
		accepted, told := 0, -1
		var err error
		for i := 0; accepted < len(stream) && err == nil; i++ {
			if i == int(at) {
				told = accepted
				h.requestClose(due)
			}
			end := len(stream)
			if i < len(cuts) {
				end = min(end, accepted+1+int(cuts[i])*int(cuts[i]))
			}
			var n int
			n, err = h.Write(stream[accepted:end])
			accepted += n
		}
		want, left := stream, false
		for i := told; told >= 0 && i <= len(stream) && !left; i++ {
			if whole, isEnd := ends[i]; isEnd && (whole || !patient) {
				want, left = join(stream[:i], goingAway), true
			}
		}
		if !bytes.Equal(conn.stream, want) {
			t.Fatalf("%d bytes were written, not %d", len(conn.stream), len(want))
		}
		if !left && (err != nil || accepted < len(stream)) {
			t.Fatalf("%d of %d bytes were accepted, %v", accepted, len(stream), err)
		}
		if left {
			checkRefusal(t, stream[len(want)-len(goingAway):], accepted-(len(want)-len(goingAway)), err)
		}
	})
}

// checkRefusal checks that what was accepted of the frames that never reach the client is all that comes before the
// next message.
func checkRefusal(t *testing.T, unsent []byte, accepted int, err error) {
	t.Helper()
	n := 0
	for n < len(unsent) && unsent[n]&8 != 0 {
		n += 2 + int(unsent[n+1])
	}
	if accepted != n || (err != nil) != (n < len(unsent)) {
		t.Fatalf("%d of %d bytes were accepted after the close frame, not %d: %v", accepted, len(unsent), n, err)
	}
}

// converse is a handler and its library in short: it returns when the client has said its echo or is gone.
func converse(conn net.Conn) {
	defer conn.Close()
	conn.Read(make([]byte, 1))
	conn.Write(goingAway)
}

func mustRead(t *testing.T, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the client reads %.100q, %v; want %.100q", got, err, want)
	}
}

func TestGoAwayTakes(t *testing.T) {
	errLate := errors.New("late")
	for name, tt := range map[string]struct {
		websocket bool
		client    func(t *testing.T, conn net.Conn)
		handler   func(conn net.Conn)
		want      time.Duration
		err       error
	}{
		"as long as the client": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, goingAway)
			time.Sleep(time.Second)
			conn.Write([]byte("echo"))
		}, converse, time.Second, nil},
		"a while for a client that does not answer": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, goingAway)
		}, converse, closeFrameTimeout, nil},
		"as long for one whose handler has a deadline that is later": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, goingAway)
		}, func(conn net.Conn) {
			conn.SetReadDeadline(time.Now().Add(time.Hour))
			go func() {
				time.Sleep(time.Second)
				conn.SetDeadline(time.Now().Add(time.Hour))
			}()
			converse(conn)
		}, time.Second + closeFrameTimeout, nil},
		"as long as the handler says, if that is sooner": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, goingAway)
			io.Copy(io.Discard, conn)
			conn.Close()
		}, func(conn net.Conn) {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			converse(conn)
		}, time.Second, nil},
		"as long as a handler works that comes to read late": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, goingAway)
			conn.Write([]byte("echo"))
			conn.Close()
		}, func(conn net.Conn) {
			time.Sleep(2 * closeFrameTimeout)
			converse(conn)
		}, 2 * closeFrameTimeout, nil},
		"as long as a client goes on talking": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, goingAway)
			for range 6 {
				time.Sleep(closeFrameTimeout / 2)
				conn.Write([]byte("something"))
			}
			conn.Close()
		}, func(conn net.Conn) { io.Copy(io.Discard, conn); conn.Close() }, 3 * closeFrameTimeout, nil},
		"all of the time for a client that does not read": {true, func(t *testing.T, conn net.Conn) {},
			converse, 10 * time.Second, errLate},
		"half of the time in a message without end": {true, func(t *testing.T, conn net.Conn) {
			mustRead(t, conn, join(frameOf(text, 2), goingAway))
			conn.Write([]byte("echo"))
		}, func(conn net.Conn) {
			conn.Write(frameOf(text, 2))
			converse(conn)
		}, 5 * time.Second, nil},
		"as long as what is no WebSocket": {false, func(t *testing.T, conn net.Conn) {
			if b, err := io.ReadAll(conn); string(b) != "Hello." || err != nil {
				t.Errorf("the client reads %q, %v", b, err)
			}
		}, func(conn net.Conn) {
			time.Sleep(7 * time.Second)
			conn.Write([]byte("Hello."))
			conn.Close()
		}, 7 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errLate)
				defer cancel()
				near, far := net.Pipe()
				h := newHijacked(near, tt.websocket, false, func(*hijacked) {})
				go tt.handler(h)
				go tt.client(t, far)
				synctest.Wait()
				begun := time.Now()
				if err := h.goAway(ctx); err != tt.err {
					t.Errorf("goAway: %v", err)
				}
				if took := time.Since(begun); took != tt.want {
					t.Errorf("it took %v, not %v", took, tt.want)
				}
			})
		})
	}
}

func writeAndClose(conn net.Conn, written chan<- error) {
	_, err := conn.Write(frameOf(final|text, 300))
	conn.Close()
	written <- err
}

func TestCloseEndsAWriteThatHangs(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	ended := 0
	h := newHijacked(near, true, false, func(*hijacked) { ended++ })
	written := make(chan error)
	go writeAndClose(h, written)
	mustRead(t, far, frameOf(final|text, 300)[:1])
	h.Close()
	if err := receive(t, written); err == nil || ended != 1 {
		t.Errorf("the write ends with %v, the connection %d times", err, ended)
	}
}

func TestGoAwayDoesNotWaitForAWriteThatHangs(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	h := newHijacked(near, true, false, func(*hijacked) {})
	written := make(chan error)
	go writeAndClose(h, written)
	mustRead(t, far, frameOf(final|text, 300)[:1])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.goAway(ctx); err != context.Canceled {
		t.Errorf("goAway: %v", err)
	}
	if err := receive(t, written); err == nil {
		t.Error("the write has succeeded")
	}
}

// certificate is that of httptest's servers.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	return srv.TLS
}

// The alert that ends TLS is not awaited at the deadline, when the client does not read.
func TestGoAwayCutsTLSInTime(t *testing.T) {
	config := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		server, client := tls.Server(near, config), tls.Client(far, &tls.Config{InsecureSkipVerify: true})
		go func() {
			client.Handshake()
			client.Read(make([]byte, len(goingAway)))
		}()
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h := newHijacked(server, true, false, func(*hijacked) {})
		begun := time.Now()
		if err := h.goAway(ctx); err != context.DeadlineExceeded {
			t.Errorf("goAway: %v", err)
		}
		if b, err := io.ReadAll(far); len(b) > 0 || err != nil {
			t.Errorf("after that the client reads %q, %v", b, err)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// tcp makes the two ends of a connection.
func tcp(t *testing.T) (server, client net.Conn) {
	t.Helper()
	ln := listen(t)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(testTimeout))
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// witness is a connection that keeps what is read.
type witness struct {
	net.Conn
	read []byte
}

func (c *witness) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read = append(c.read, p[:n]...)
	return n, err
}

func (c *witness) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// A connection with unread bytes is reset when it is closed.
func TestHandlerThatClosesAtOnceDoesNotResetTheConnection(t *testing.T) {
	server, client := tcp(t)
	seen := &witness{Conn: server}
	h := newHijacked(seen, true, false, func(*hijacked) { t.Error("it has ended too early") })
	h.requestClose((*webSocketFrames).betweenMessages)
	client.Write([]byte("unread, "))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	left := make(chan error)
	go func() { left <- h.goAway(t.Context()) }()
	if b, err := io.ReadAll(client); err != nil || !bytes.Equal(b, goingAway) {
		t.Errorf("the client reads %q, %v", b, err)
	}
	client.Write([]byte("echo"))
	client.Close()
	if err := receive(t, left); err != nil || string(seen.read) != "unread, echo" {
		t.Errorf("goAway reads %q, %v", seen.read, err)
	}
}

func TestStaleWriteDeadlineDoesNotSilenceTheServer(t *testing.T) {
	server, client := tcp(t)
	h := newHijacked(server, true, false, nil)
	defer server.Close()
	h.SetWriteDeadline(time.Now().Add(-time.Hour))
	h.requestClose((*webSocketFrames).betweenMessages)
	mustRead(t, client, goingAway)
}

func TestHalfCloseReachesTheConnection(t *testing.T) {
	server, client := tcp(t)
	defer server.Close()
	if err := newHijacked(server, false, false, nil).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v", err)
	}
	if err := newHijacked(&tape{}, false, false, nil).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without half-close: %v", err)
	}
}

// pipes is a server whose every connection is one end of a pipe.
type pipes struct{ far chan net.Conn }

func (p pipes) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	near, far := net.Pipe()
	p.far <- far
	return near, bufio.NewReadWriter(bufio.NewReader(near), bufio.NewWriter(near)), nil
}

// open begins one WebSocket, whose client calls told and answers.
func (p pipes) open(t *testing.T, h *hijacks, told func()) {
	go func() {
		far := <-p.far
		mustRead(t, far, goingAway)
		told()
		far.Write([]byte("echo"))
	}()
	conn, _, err := h.hijack(p, true, false)
	if err != nil {
		t.Fatal(err)
	}
	go converse(conn)
}

func TestClientsAreToldOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		h, server := newHijacks(), pipes{make(chan net.Conn)}
		begun := time.Now()
		var mu sync.Mutex
		var told []time.Duration
		note := func() {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, time.Since(begun))
		}
		for range 4 {
			server.open(t, h, note)
		}
		if n := h.count(); n != 4 {
			t.Errorf("there are %d", n)
		}
		go func() {
			time.Sleep(time.Second)
			server.open(t, h, note)
		}()
		if err := h.goAway(ctx, 8*time.Second); err != nil {
			t.Error(err)
		}
		want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 6 * time.Second}
		if !slices.Equal(told, want) || h.count() != 0 {
			t.Errorf("they were told after %v, not %v; %d are left", told, want, h.count())
		}
	})
}

func TestSpreadLeavesTimeForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		h, server := newHijacks(), pipes{make(chan net.Conn)}
		for range 5 {
			server.open(t, h, func() { time.Sleep(2 * time.Second) })
		}
		if err := h.goAway(ctx, time.Hour); err != nil {
			t.Error(err)
		}
	})
}

func TestGoAwayTellsHowManyStayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h, server := newHijacks(), pipes{make(chan net.Conn)}
		server.open(t, h, func() {})
		for range 2 {
			server.open(t, h, func() { time.Sleep(time.Minute) })
		}
		defer time.Sleep(time.Minute)
		if who := h.waitedFor(); who != "" {
			t.Errorf("nobody was told to leave, and it waits for %s", who)
		}
		time.AfterFunc(time.Second/2, func() {
			want := "2 hijacked connections, the oldest a WebSocket from pipe, open for 1s"
			if who := h.waitedFor(); who != want {
				t.Errorf("it waits for %q, not %q", who, want)
			}
		})
		err := h.goAway(ctx, 0)
		if want := "cut connections (2): context deadline exceeded"; fmt.Sprint(err) != want {
			t.Errorf("%v, not %v", err, want)
		}
	})
}

func TestGoAwayTellsWhoDidNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, server := newHijacks(), pipes{make(chan net.Conn)}
		server.open(t, h, func() {})
		server.open(t, h, func() { time.Sleep(time.Minute) })
		defer time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.goAway(ctx, 0); err != nil || h.unansweredCount() != 1 || h.count() != 0 {
			t.Errorf("%d did not answer, %d are left, %v", h.unansweredCount(), h.count(), err)
		}
	})
}

// A connection that is being taken is neither the server's nor the handler's.
func TestGoAwayWaitsForAConnectionThatIsBeingTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		h, server := newHijacks(), pipes{make(chan net.Conn)}
		go h.hijack(server, true, false)
		synctest.Wait()
		left := make(chan error)
		go func() { left <- h.goAway(ctx, 0) }()
		synctest.Wait()
		select {
		case err := <-left:
			t.Fatal("it did not wait:", err)
		default:
		}
		mustRead(t, <-server.far, goingAway)
		cancel()
		if err := <-left; err == nil {
			t.Error("the handler that does nothing was not counted")
		}
	})
}

type refusal struct{}

func (refusal) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrHijacked }

func TestConnectionThatCannotBeTakenIsNotAwaited(t *testing.T) {
	h := newHijacks()
	if _, _, err := h.hijack(refusal{}, true, false); err != http.ErrHijacked {
		t.Error(err)
	}
	if err := h.goAway(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// early is a server whose client has sent frames before its connection is taken.
type early struct{ *bufio.ReadWriter }

func (e early) Hijack() (net.Conn, *bufio.ReadWriter, error) { return &tape{}, e.ReadWriter, nil }

// TestWhatWasSentEarlyIsHeld: libraries take only as much from the reader as it says that it holds.
func TestWhatWasSentEarlyIsHeld(t *testing.T) {
	for _, sent := range []string{"", "a frame"} {
		r := bufio.NewReader(strings.NewReader(sent))
		if _, err := r.Peek(len(sent)); err != nil {
			t.Fatal(err)
		}
		_, taken, err := newHijacks().hijack(early{bufio.NewReadWriter(r, bufio.NewWriter(io.Discard))}, true, false)
		if err != nil {
			t.Fatal(err)
		}
		held, err := taken.Reader.Peek(taken.Reader.Buffered())
		if err != nil || string(held) != sent {
			t.Errorf("of %q the reader holds %q, %v", sent, held, err)
		}
	}
}

func TestClientOfARealServerIsTold(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){
		"TCP": (*httptest.Server).Start,
		"TLS": (*httptest.Server).StartTLS,
	} {
		for by, preamble := range map[string]bool{"the library": true, "net/http": false} {
			t.Run("by "+name+", the response by "+by, func(t *testing.T) {
				h := newHijacks()
				srv := httptest.NewUnstartedServer(chat(t, h, preamble))
				start(srv)
				defer srv.Close()
				checkFarewell(t, h, upgrade(t, srv))
			})
		}
	}
}

// chat sends a message and waits for the echo.
func chat(t *testing.T, h *hijacks, preamble bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		const connection, upgrade = "Upgrade", "websocket"
		if !preamble {
			w.Header().Set("Connection", connection)
			w.Header().Set("Upgrade", upgrade)
			w.WriteHeader(http.StatusSwitchingProtocols)
		}
		conn, buffered, err := h.hijack(w.(http.Hijacker), upgradesToWebSocket(r.Header), preamble)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if preamble {
			fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: %s\r\nUpgrade: %s\r\n\r\n", connection, upgrade)
		}
		buffered.Write(frameOf(final|text, 300))
		buffered.Flush()
		mustRead(t, buffered, []byte("echo"))
		conn.Write(goingAway)
	}
}

// upgrade begins a conversation.
func upgrade(t *testing.T, srv *httptest.Server) *client {
	t.Helper()
	c := connect(t, srv.Listener.Addr())
	if srv.TLS != nil {
		c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
		c.r.Reset(c.conn)
	}
	fmt.Fprint(c.conn, "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return c
}

func checkFarewell(t *testing.T, h *hijacks, c *client) {
	t.Helper()
	mustRead(t, c.r, frameOf(final|text, 300))
	left := make(chan error)
	go func() { left <- h.goAway(t.Context(), 0) }()
	mustRead(t, c.r, goingAway)
	fmt.Fprint(c.conn, "echo")
	c.mustEnd(t)
	c.conn.Close()
	if err := receive(t, left); err != nil {
		t.Error(err)
	}
}

func TestUpgradesToWebSocket(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, "websocket": true, "WebSocket": true, "h2c, websocket": true, "h2c": false, "websockets": false,
	} {
		if got := upgradesToWebSocket(http.Header{"Upgrade": {value}}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}
