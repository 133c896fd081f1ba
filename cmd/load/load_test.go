package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestGoodServersFailNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := serveHTTP(t, network, goodApp(7))
			clients := map[Kind]int{NewConnection: 2, KeepAliveGet: 2, KeepAlivePost: 2, Slow: 1, Stream: 2}
			l := startLoad(t, Config{Network: network, Addr: addr, Clients: clients, ThinkMax: time.Millisecond})
			await(t, l, "request of every kind", func(tally Tally) bool {
				for kind := range clients {
					if tally.Requests(kind) < 20 {
						return false
					}
				}
				return true
			})
			tally := l.Stop()
			if tally.Failures() != 0 {
				t.Error(tally)
			}
			if reconnects := tally.Kinds[Stream].Reconnects; reconnects == 0 || tally.Events() < 5*reconnects {
				t.Errorf("%d events over %d ended streams", tally.Events(), reconnects)
			}
			if len(tally.Answers) != 1 || tally.Answers[Source{7, os.Getpid()}].Count < 100 {
				t.Errorf("answers: %v", tally.Answers)
			}
		})
	}
}

func TestGoodEchoServersFailNothing(t *testing.T) {
	handle := func(c net.Conn) {
		io.Copy(c, c)
		c.Close()
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			l := startLoad(t, Config{Network: network, Addr: serve(t, network, handle), Clients: map[Kind]int{Echo: 4}})
			await(t, l, "echo", func(tally Tally) bool { return tally.Requests(Echo) > 100 })
			if tally := l.Stop(); tally.Failures() != 0 {
				t.Error(tally)
			}
		})
	}
}

func TestGoodPacketServersFailNothing(t *testing.T) {
	for network, addr := range map[string]string{"udp": "127.0.0.1:0", "unixgram": filepath.Join(t.TempDir(), "s")} {
		t.Run(network, func(t *testing.T) {
			server, err := net.ListenPacket(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			go echoPackets(server)
			l := startLoad(t, Config{Network: network, Addr: server.LocalAddr().String(), Clients: map[Kind]int{Packet: 4}})
			await(t, l, "packet", func(tally Tally) bool { return tally.Requests(Packet) > 100 })
			if tally := l.Stop(); tally.Failures() != 0 {
				t.Error(tally)
			}
		})
	}
}

func TestBadServersAreFoundOut(t *testing.T) {
	tests := []struct {
		name   string
		kind   Kind
		handle func(net.Conn)
		want   Failure
	}{
		{"new connection reset", NewConnection, answers(resets, ""), Reset},
		{"new connection closed unread", NewConnection, closesUnread, Reset},
		{"new connection closed after the request", NewConnection, answers(closes, ""), Lost},
		{"first request of a keep-alive connection lost", KeepAliveGet, answers(closes, ""), Lost},
		{"later request of a keep-alive connection lost", KeepAliveGet, answers(closes, okResponse, ""), Lost},
		{"idle connection closed", KeepAliveGet, answers(closes, okResponse), IdleClosed},
		{"idle connection reset", KeepAliveGet, answers(resets, okResponse), IdleClosed},
		{"idle connection closed with an unread request", KeepAliveGet, answers(closesUnread, okResponse), IdleClosed},
		{"status 503", KeepAliveGet, answers(closes, "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), BadStatus},
		{"stream with status 500", Stream, answers(closes, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), BadStatus},
		{"half a head", KeepAliveGet, answers(closes, "HTTP/1.1 200 OK\r\nContent-Le"), Short},
		{"half a body", Slow, answers(closes, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Short},
		{"body without its last chunk", NewConnection, answers(closes, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), Short},
		{"reset in the body", Slow, resetInBody, Reset},
		{"wrong checksum", Slow, answers(closes, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Checksum: 00000000\r\n\r\nok"), Wrong},
		{"another echo", KeepAlivePost, answers(closes, closingResponse), Wrong},
		{"no HTTP", NewConnection, answers(closes, "hello\r\n\r\n"), Wrong},
		{"no answer", NewConnection, answers(hangs, ""), Timeout},
		{"no end", Slow, answers(hangs, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Timeout},
		{"stream cut between chunks", Stream, answers(closes, streamHead+chunk("id: 1\ndata: x\n\n")), Short},
		{"stream ended in an event", Stream, answers(closes, streamHead+chunk("id: 1\ndata: x\n")+chunk("")), Short},
		{"event missing", Stream, answers(closes, streamHead+chunk("id: 1\ndata: x\n\nid: 3\ndata: x\n\n")+chunk("")), Lost},
		{"silent stream", Stream, answers(hangs, streamHead+chunk("id: 1\ndata: x\n\n")), Timeout},
		{"echo cut", Echo, echoes(10), Short},
		{"echo never ended", Echo, neverEnds, Timeout},
		{"wrong echo", Echo, func(c net.Conn) { c.Write(make([]byte, payloadSize)) }, Wrong},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Addr: serve(t, "tcp", test.handle), Clients: map[Kind]int{test.kind: 2}, Timeout: patience}
			if test.want == Timeout {
				cfg.Timeout = 50 * time.Millisecond
			}
			expect(t, startLoad(t, cfg), test.want)
		})
	}
}

// expect waits for failures, and wants all of them to be of one kind.
func expect(t *testing.T, l *Load, want Failure) {
	t.Helper()
	tally := await(t, l, string(want), func(tally Tally) bool { return tally.Failures() >= 5 })
	for failure, count := range tally.ByFailure() {
		if failure != want {
			t.Errorf("%d times %q, want only %q: %v", count, failure, want, tally)
		}
	}
	if first := tally.First[0]; first.Failure != want || first.At.IsZero() || first.Err == nil {
		t.Errorf("the first failure is %v", first)
	}
}

const streamHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

func resetInBody(c net.Conn) {
	readRequest(bufio.NewReader(c))
	io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
	resets(c)
}

// echoes gives a number of bytes back, and closes.
func echoes(count int64) func(net.Conn) {
	return func(c net.Conn) {
		message := make([]byte, payloadSize)
		io.ReadFull(c, message)
		c.Write(message[:count])
		c.Close()
	}
}

func neverEnds(c net.Conn) {
	io.Copy(c, c)
	<-make(chan struct{})
}

func TestNobodyListens(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, _ := syscall.Getsockname(fd)
	addr := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	for _, cfg := range []Config{
		{Addr: addr, Clients: map[Kind]int{NewConnection: 1, KeepAlivePost: 1, Stream: 1, Echo: 1}},
		{Network: "unix", Addr: filepath.Join(t.TempDir(), "none"), Clients: map[Kind]int{NewConnection: 1}},
		{Network: "udp", Addr: addr, Clients: map[Kind]int{Packet: 1}},
	} {
		expect(t, startLoad(t, cfg), Refused)
	}
}

func TestFullUnixQueueRefuses(t *testing.T) {
	ln, addr := listen(t, "unix")
	shrink(t, ln.(*net.UnixListener))
	l := startLoad(t, Config{Network: "unix", Addr: addr, Clients: map[Kind]int{NewConnection: 4}, Timeout: time.Minute})
	await(t, l, "refusal", func(tally Tally) bool { return tally.ByFailure()[Refused] > 5 })
}

// shrink makes the queue of a listener as short as it can be.
func shrink(t *testing.T, ln *net.UnixListener) {
	t.Helper()
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownNameIsAnError(t *testing.T) {
	if _, err := Start(context.Background(), Config{Addr: "no port"}); err == nil {
		t.Error("no error")
	}
}

func TestLostPacketIsATimeout(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	cfg := Config{Network: "udp", Addr: server.LocalAddr().String(), Clients: map[Kind]int{Packet: 1}, Timeout: 20 * time.Millisecond}
	expect(t, startLoad(t, cfg), Timeout)
}

// A server that closes idle connections at a moment that has nothing to do with the client's: whatever the client meets then,
// the request was not read, so that it counts as idle closed and never as lost.
func TestIdleCloseIsToldFromALostRequest(t *testing.T) {
	handle := func(c net.Conn) {
		answers(func(net.Conn) {}, okResponse)(c)
		for begun, wait := time.Now(), rand.N(60*time.Microsecond); time.Since(begun) < wait; {
		}
		c.Close()
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			l := startLoad(t, Config{Network: network, Addr: serve(t, network, handle), Clients: map[Kind]int{KeepAliveGet: 2}, ThinkMax: 20 * time.Microsecond, Foreign: true})
			tally := await(t, l, "closed idle connection", func(tally Tally) bool { return tally.IdleClosed() > 50 })
			if tally.Failures() != 0 || len(tally.First) != 0 {
				t.Error(tally)
			}
		})
	}
}

func TestForeignServersStillLoseRequests(t *testing.T) {
	cfg := Config{Addr: serve(t, "tcp", answers(closes, okResponse, "")), Clients: map[Kind]int{KeepAliveGet: 2}, Foreign: true}
	expect(t, startLoad(t, cfg), Lost)
}

func TestServersThatLingerMayDropTheNextRequest(t *testing.T) {
	cfg := Config{Addr: serve(t, "tcp", answers(closes, okResponse, "")), Clients: map[Kind]int{KeepAliveGet: 2}, Lingers: true}
	expect(t, startLoad(t, cfg), IdleClosed)
}

// The server counts what it reads: a client that retried would send more requests than it counts.
func TestNothingIsSentTwice(t *testing.T) {
	var requests, good atomic.Int64
	addr := serve(t, "tcp", func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for range 3 {
			if _, ok := readRequest(in); !ok {
				return
			}
			if requests.Add(1)%2 == 0 {
				return
			}
			good.Add(1)
			io.WriteString(c, okResponse)
		}
	})
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 3, NewConnection: 3}})
	await(t, l, "requests", func(tally Tally) bool { return tally.Requests() > 200 })
	tally := l.Stop()
	if read := uint64(requests.Load()) + tally.IdleClosed(); read != tally.Requests() {
		t.Errorf("%d requests arrived or met a closed connection, %d were counted", read, tally.Requests())
	}
	if failed := tally.Requests() - uint64(good.Load()); failed != tally.Failures() {
		t.Errorf("%d requests got no answer, %d failures were counted", failed, tally.Failures())
	}
}

func TestAnnouncedCloseIsNoFailure(t *testing.T) {
	hints := "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
	addr := serve(t, "tcp", answers(closes, okResponse, hints+closingResponse))
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 2}})
	await(t, l, "reconnect", func(tally Tally) bool {
		return tally.Kinds[KeepAliveGet] != nil && tally.Kinds[KeepAliveGet].Reconnects > 10
	})
	if tally := l.Stop(); tally.Failures() != 0 {
		t.Error(tally)
	}
}

// The server waits until the client has seen its end: a client that did not look would send its next request on it.
func TestClientsThatLookDoNotUseAClosedConnection(t *testing.T) {
	addr := serve(t, "tcp", answers(closes, okResponse))
	l := startLoad(t, Config{Addr: addr, Looks: true, From: "127.0.0.9", Ramp: time.Millisecond})
	conn, err := dial(l.hard, l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &httpClient{link: link{l, conn}, kind: KeepAliveGet, keep: true}
	if conn.ended() {
		t.Error("a new connection has ended")
	}
	if from, _, _ := net.SplitHostPort(conn.LocalAddr().String()); from != l.cfg.From {
		t.Errorf("the client has the address %s", from)
	}
	for range 3 {
		if _, err := c.exchange(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.conn.in.Peek(1); err != io.EOF {
			t.Fatalf("the server did not close: %v", err)
		}
	}
	if got := l.Snapshot().Kinds[KeepAliveGet].Reconnects; got != 2 {
		t.Errorf("%d connections opened anew, want 2", got)
	}
	c.close()
}

// A client that is far away does not see an end that is on its way to it, while its request is on its way to the server.
func TestClientsThatAreAwayUseAConnectionThatIsAboutToClose(t *testing.T) {
	const away = 20 * time.Millisecond
	arrived := make(chan time.Time, 1)
	addr := serve(t, "tcp", func(c net.Conn) {
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		arrived <- time.Now()
	})
	begun := time.Now()
	l, err := Start(t.Context(), Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 1}, Looks: true, Away: away, ThinkMin: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	at := <-arrived
	if tally := l.Stop(); at.Sub(begun) < 2*away || tally.ByFailure()[Lost] != 1 {
		t.Errorf("a request came after %s, and the way there and back takes %s:\n%s", at.Sub(begun), 2*away, tally)
	}
}

func TestAnswersCanBeChosen(t *testing.T) {
	for answer, want := range map[string]uint64{"ok": 0, "OK": 2} {
		addr := serve(t, "tcp", answers(closes, closingResponse))
		l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAlivePost: 1}, Answer: answer})
		tally := await(t, l, "answer", func(tally Tally) bool { return tally.Requests() > 2 })
		if tally.ByFailure()[Wrong] < want || want == 0 && tally.Failures() > 0 {
			t.Errorf("%q: %v", answer, tally)
		}
	}
}

func TestStreamGoesOnAfterTheLastEvent(t *testing.T) {
	var asked atomic.Value
	addr := serveHTTP(t, "tcp", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.CompareAndSwap(nil, r.Header.Get("Last-Event-ID"))
		if r.Header.Get("Last-Event-ID") == "3" {
			asked.Store("3")
		}
		events(w, r, 3)
	}))
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{Stream: 1}})
	tally := await(t, l, "event", func(tally Tally) bool { return tally.Events() >= 9 })
	if tally.Failures() != 0 || asked.Load() != "3" {
		t.Errorf("asked for the events after %q: %v", asked.Load(), tally)
	}
}

func TestPathsCanBeChosen(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /there", func(w http.ResponseWriter, r *http.Request) {})
	addr := serveHTTP(t, "tcp", mux)
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{NewConnection: 1}, Paths: map[Kind]string{NewConnection: "/there"}})
	if tally := await(t, l, "request", func(tally Tally) bool { return tally.Requests() > 3 }); tally.Failures() != 0 {
		t.Error(tally)
	}
}

// gate is a server whose answers wait until they are let through.
func gate(t *testing.T) (addr string, arrived, let chan struct{}) {
	arrived, let = make(chan struct{}, 100), make(chan struct{})
	addr = serve(t, "tcp", func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			if _, ok := readRequest(in); !ok {
				return
			}
			arrived <- struct{}{}
			<-let
			io.WriteString(c, okResponse)
		}
	})
	return addr, arrived, let
}

func TestRequestThatSpansAnUpgradeCountsAsDuring(t *testing.T) {
	addr, arrived, let := gate(t)
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 1}})
	answered := func(outside, during int64) {
		t.Helper()
		await(t, l, "answer", func(tally Tally) bool {
			return tally.Latency(Outside).TotalCount() == outside && tally.Latency(During).TotalCount() == during
		})
	}
	<-arrived
	l.Mark(Outside)
	let <- struct{}{}
	answered(1, 0)
	<-arrived
	l.Mark(During)
	l.Mark(During)
	l.Mark(Outside)
	let <- struct{}{}
	answered(1, 1)
	<-arrived
	l.Mark(During)
	let <- struct{}{}
	answered(1, 2)
	<-arrived
	let <- struct{}{}
	answered(1, 3)
	<-arrived
	l.Mark(Outside)
	let <- struct{}{}
	answered(1, 4)
	<-arrived
	let <- struct{}{}
	answered(2, 4)
}

func TestStopLetsRequestsFinish(t *testing.T) {
	addr, arrived, let := gate(t)
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{NewConnection: 2, KeepAlivePost: 1}})
	for range 3 {
		<-arrived
	}
	stopped := make(chan Tally)
	go func() { stopped <- l.Stop() }()
	<-l.soft.Done()
	for range 3 {
		let <- struct{}{}
	}
	if tally := <-stopped; tally.Requests() != 3 || tally.Failures(NewConnection) != 0 {
		t.Error(tally)
	}
}

func TestStopEndsStreams(t *testing.T) {
	addr := serve(t, "tcp", answers(hangs, streamHead+chunk("id: 1\ndata: x\n\n")))
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{Stream: 2}, Timeout: time.Hour})
	await(t, l, "event", func(tally Tally) bool { return tally.Events() == 2 })
	if tally := l.Stop(); tally.Failures() != 0 {
		t.Error(tally)
	}
}

func TestEndedContextCountsNothing(t *testing.T) {
	addr, arrived, _ := gate(t)
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Start(ctx, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 2, NewConnection: 2}, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		<-arrived
	}
	cancel()
	if tally := l.Stop(); tally.Requests() != 0 {
		t.Error(tally)
	}
}

func TestDeadlineOfTheContextIsNoFailure(t *testing.T) {
	addr := serveHTTP(t, "tcp", goodApp(1))
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		l, err := Start(ctx, Config{Addr: addr, Clients: map[Kind]int{NewConnection: 20, Stream: 5}})
		if err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if tally := l.Stop(); tally.Failures() != 0 {
			t.Fatal(tally)
		}
		cancel()
	}
}

func TestAwaitNewGeneration(t *testing.T) {
	var generation atomic.Int64
	generation.Store(9) // which answers before anybody waits
	addr := serveHTTP(t, "tcp", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Generation", fmt.Sprint(generation.Load()))
		if generation.Load() == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 1}, ThinkMin: time.Millisecond})
	is := func(n int) func(Source) bool { return func(s Source) bool { return s.Generation == n } }
	for n := range 3 {
		changed := time.Now()
		generation.Store(int64(n))
		first, err := l.Await(t.Context(), is(n))
		if err != nil || first.Before(changed) {
			t.Errorf("generation %d answered at %v, %v", n, first, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Await(ctx, is(10)); err != context.Canceled {
		t.Errorf("error %v", err)
	}
}

func TestLapHoldsWhatEndedSince(t *testing.T) {
	addr, arrived, let := gate(t)
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 1}})
	<-arrived
	let <- struct{}{}
	<-arrived
	if lap := l.Lap(); lap.TotalCount() != 1 || lap.Max() < 1 {
		t.Errorf("%d in the first lap", lap.TotalCount())
	}
	if lap := l.Lap(); lap.TotalCount() != 0 {
		t.Errorf("%d in the second lap", lap.TotalCount())
	}
}

func TestSnapshotIsACopy(t *testing.T) {
	addr := serve(t, "tcp", answers(closes, okResponse, ""))
	l := startLoad(t, Config{Addr: addr, Clients: map[Kind]int{KeepAliveGet: 1}})
	before := await(t, l, "failure", func(tally Tally) bool { return tally.Failures() > 0 })
	text := before.String()
	await(t, l, "failure", func(tally Tally) bool { return tally.Failures() > before.Failures() })
	if before.String() != text {
		t.Errorf("the copy changed from %q to %q", text, before.String())
	}
}

func TestTallyText(t *testing.T) {
	tally := newTally(false)
	tally.counts(NewConnection).Requests = 12
	tally.fail(NewConnection, time.Now(), syscall.ECONNRESET)
	tally.fail(NewConnection, time.Now(), io.ErrUnexpectedEOF)
	text := tally.String()
	for _, want := range []string{"12 requests, 2 failed", "new connection: 12, 1 reset, 1 cut short", "connection reset by peer"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	for range 100 {
		tally.fail(Slow, time.Now(), io.ErrUnexpectedEOF)
	}
	if len(tally.First) != firstFailures {
		t.Errorf("%d first failures are kept", len(tally.First))
	}
}

func TestFailureIsReportedWithItsConnection(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			clients, reports := make(chan string, 1), make(chan Failed, 1)
			addr := serve(t, network, func(c net.Conn) {
				select {
				case clients <- c.RemoteAddr().String():
				default:
				}
				c.Close()
			})
			begun := time.Now()
			startLoad(t, Config{Network: network, Addr: addr, Clients: map[Kind]int{KeepAliveGet: 1}, Report: func(f Failed) {
				select {
				case reports <- f:
				default:
				}
			}})
			failed, client := <-reports, <-clients
			if failed.On.Opened.Before(begun) || failed.On.Client == "" {
				t.Errorf("the connection is %+v", failed.On)
			}
			if network == "tcp" && failed.On.Client != client {
				t.Errorf("the failure was on %s, the first connection came from %s", failed.On.Client, client)
			}
		})
	}
}
