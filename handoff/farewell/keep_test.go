package farewell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() { apptest.Roles["obedient"] = obey }

// obey is an app that does to its connections what it is told: "listen HOST", "accept", "read N BYTES", "write N TEXT",
// "close N", "shutdown N"; "up" for its loopback interface, "dial" for a client of its own and its connection, and "talk"
// for what the last of these gets.
func obey() {
	var listener net.Listener
	var conns []*net.TCPConn
	var clients []net.Conn
	apptest.Obey(func(order string) string {
		word, rest, _ := strings.Cut(order, " ")
		number, text, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(number)
		var err error
		switch word {
		case "listen":
			plain := net.ListenConfig{}
			plain.SetMultipathTCP(false)
			if listener, err = plain.Listen(context.Background(), "tcp", rest+":0"); err == nil {
				return listener.Addr().String()
			}
		case "accept":
			var c net.Conn
			if c, err = listener.Accept(); err == nil {
				conns = append(conns, c.(*net.TCPConn))
			}
		case "read":
			size, _ := strconv.Atoi(text)
			_, err = io.ReadFull(conns[n], make([]byte, size))
		case "write":
			text, _ = strconv.Unquote(text)
			_, err = io.WriteString(conns[n], text)
		case "close":
			err = conns[n].Close()
		case "shutdown":
			err = conns[n].CloseWrite()
		case "up":
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		case "dial":
			var c net.Conn
			if c, err = net.Dial("tcp", listener.Addr().String()); err == nil {
				clients = append(clients, c)
				c, err = listener.Accept()
				conns = append(conns, c.(*net.TCPConn))
			}
		case "talk":
			got, last := make([]byte, 1024), len(clients)-1
			client, conn := clients[last], conns[last]
			_, _ = io.WriteString(client, get)
			_, _ = io.ReadFull(conn, make([]byte, len(get)))
			_, _ = io.WriteString(conn, plainOK)
			n, _ := client.Read(got)
			return fmt.Sprintf("%q", got[:n])
		}
		return fmt.Sprint(err)
	})
}

// parting is an app with two connections: the first speaks HTTP, the second is silent and held.
type parting struct {
	t              *testing.T
	app            *apptest.App
	at             netip.AddrPort
	speaks, silent *net.TCPConn
	f              *Farewell
}

func part(t *testing.T) *parting {
	t.Helper()
	return partAt(t, "127.0.0.1")
}

func partAt(t *testing.T, host string) *parting {
	t.Helper()
	announcer(t)
	p := &parting{t: t, app: apptest.Start(t, "obedient", apptest.Options{})}
	p.at = netip.MustParseAddrPort(p.app.Ask(t, "listen "+host))
	p.speaks, p.silent = p.connect(), p.connect()
	var err error
	p.f, err = announcer(t).Announce(Generation{Pids: func() ([]int, error) { return []int{p.app.PID}, nil }, At: []netip.AddrPort{p.at}})
	apptest.Must(t, err)
	t.Cleanup(func() { p.f.Release() })
	p.speak(0, p.speaks, closedOK)
	mustHold(t, p.f, Counts{Busy: 1, Silent: 1, Held: 1})
	return p
}

func (p *parting) connect() *net.TCPConn {
	c := apptest.Dial(p.t, "tcp", p.at.String()).(*net.TCPConn)
	apptest.Must(p.t, c.SetDeadline(time.Now().Add(apptest.Patience)))
	p.app.Do(p.t, "accept")
	return c
}

func (p *parting) speak(n int, c net.Conn, want string) {
	p.t.Helper()
	_, err := io.WriteString(c, get)
	apptest.Must(p.t, err)
	p.app.Do(p.t, fmt.Sprintf("read %d %d", n, len(get)))
	p.app.Do(p.t, fmt.Sprintf("write %d %q", n, plainOK))
	mustRead(p.t, c, want)
}

// keeping runs Keep, which has to end.
type keeping struct {
	ctx    context.Context
	cancel context.CancelFunc
	stop   context.CancelFunc
	ended  chan struct{}
	result Result
	err    error
}

func (p *parting) keep(how Keeping) *keeping {
	k := &keeping{ended: make(chan struct{})}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	stopping, stop := context.WithCancel(context.Background())
	k.stop = stop
	go func() {
		defer close(k.ended)
		k.result, k.err = p.f.Keep(k.ctx, stopping, how)
	}()
	p.t.Cleanup(func() { k.cancel(); k.stop(); <-k.ended })
	return k
}

func (k *keeping) mustResult(t *testing.T, want Result) {
	t.Helper()
	select {
	case <-k.ended:
	case <-time.After(apptest.Patience):
		t.Fatal("Keep does not end")
	}
	apptest.Must(t, k.err)
	if k.result != want {
		t.Errorf("%+v, not %+v", k.result, want)
	}
}

// leave has the app close both, after the client that was told.
func (p *parting) leave() {
	p.speaks.Close()
	p.app.Do(p.t, "close 0")
	p.app.Do(p.t, "close 1")
}

// successor serves the requests that are relayed to it, by hand.
func successor(t *testing.T, serve func(net.Conn)) func(context.Context, netip.AddrPort) (net.Conn, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	apptest.Must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(apptest.Patience))
				serve(c)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}
}

// expect is a successor that wants a request and answers it.
func expect(t *testing.T, request, answer string) func(net.Conn) {
	return func(c net.Conn) {
		got := make([]byte, len(request))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != request {
			t.Errorf("the successor got %s, not %s: %v", short(string(got[:n])), short(request), err)
		}
		_, _ = io.WriteString(c, answer)
	}
}

const relayedGet = "GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"

func (p *parting) send(text string) {
	p.t.Helper()
	_, err := io.WriteString(p.silent, text)
	apptest.Must(p.t, err)
}

func TestKeptRequestIsRelayed(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, relayedGet, plainOK))})
	p.leave()
	p.send(get)
	mustRead(t, p.silent, closedOK)
	mustEnd(t, p.silent)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

func TestRequestThatCameWhileHeld(t *testing.T) {
	p := part(t)
	p.send(get)
	apptest.Eventually(t, "it is dropped", func() bool { return info(t, p.silent).Total_retrans > 0 })
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, relayedGet, plainOK))})
	p.leave()
	mustRead(t, p.silent, closedOK)
	mustEnd(t, p.silent)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

// An app that takes its time gets its input again, and one that does not read it leaves it to the successor.
func TestRequestThatTheAppHasNotRead(t *testing.T) {
	p := part(t)
	apptest.Must(t, announcer(t).held.Delete(p.cookie(t)))
	p.send(get)
	apptest.Eventually(t, "it comes", func() bool {
		r, _ := announcer(t).look(p.cookie(t))
		return r.Requests == 1
	})
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, relayedGet, plainOK))})
	p.leave()
	mustRead(t, p.silent, closedOK)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

// The app's end takes all its connections with it, too.
func TestKeptWhenTheAppIsKilled(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, relayedGet, plainOK))})
	apptest.Must(t, unix.Kill(p.app.PID, unix.SIGKILL))
	p.send(get)
	mustRead(t, p.silent, closedOK)
	p.silent.Close()
	p.speaks.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

func TestBigBodiesBothWays(t *testing.T) {
	body := repeat("0123456789\r\n", 8<<20)
	head := "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n"
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n"
	p := part(t)
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, strings.Replace(head, "Host", "Connection: close\r\nHost", 1)+body, answer+body))})
	p.leave()
	go func() { _, _ = io.WriteString(p.silent, head+body) }()
	mustRead(t, p.silent, said(answer)+body)
	mustEnd(t, p.silent)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

func TestRelayOf100Continue(t *testing.T) {
	const ask = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
	p := part(t)
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, func(c net.Conn) {
		expect(t, strings.Replace(ask, "Expect", "Connection: close\r\nExpect", 1), "HTTP/1.1 100 Continue\r\n\r\n")(c)
		expect(t, "body", plainOK)(c)
	})})
	p.leave()
	p.send(ask)
	mustRead(t, p.silent, "HTTP/1.1 100 Continue\r\n\r\n")
	p.send("body")
	mustRead(t, p.silent, closedOK)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

func TestRelayOfAWebSocket(t *testing.T) {
	const ask = "GET /ws HTTP/1.1\r\nHost: x\r\nconnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
	const relayed = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"
	const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	p := part(t)
	k := p.keep(Keeping{For: time.Minute, Dial: successor(t, func(c net.Conn) {
		expect(t, relayed, switched)(c)
		for range 10 {
			expect(t, "\x81\x03abc", "\x81\x12HTTP/1.1 200 OK\r\n\r\n")(c)
		}
	})})
	p.leave()
	p.send(ask)
	mustRead(t, p.silent, switched)
	for range 10 {
		p.send("\x81\x03abc")
		mustRead(t, p.silent, "\x81\x12HTTP/1.1 200 OK\r\n\r\n")
	}
	mustEnd(t, p.silent)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

func TestSuccessorThatIsNotThereYet(t *testing.T) {
	p := part(t)
	there := successor(t, expect(t, relayedGet, plainOK))
	tries := 0
	k := p.keep(Keeping{For: time.Minute, Dial: func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
		if tries++; tries < 4 {
			return nil, unix.ECONNREFUSED
		}
		return there(ctx, at)
	}})
	p.leave()
	p.send(get)
	mustRead(t, p.silent, closedOK)
	p.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

// An answer that breaks off must not look like a whole one.
func TestSuccessorThatDiesInItsAnswer(t *testing.T) {
	p := part(t)
	var failure error
	k := p.keep(Keeping{For: time.Minute, Failed: func(err error) { failure = err }, Dial: successor(t, func(c net.Conn) {
		expect(t, relayedGet, "HTTP/1.1 200 OK\r\n\r\nbegin")(c)
		_ = c.(*net.TCPConn).SetLinger(0)
	})})
	p.leave()
	p.send(get)
	got, err := io.ReadAll(p.silent)
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%q, %v", got, err)
	}
	k.mustResult(t, Result{Left: 1, Kept: 1, Cut: 1})
	if failure == nil || !strings.Contains(failure.Error(), "cannot relay the request of 127.0.0.1:") {
		t.Error(failure)
	}
}

func TestOneRelayAtATime(t *testing.T) {
	announcer(t)
	app := apptest.Start(t, "obedient", apptest.Options{})
	p := &parting{t: t, app: app, at: netip.MustParseAddrPort(app.Ask(t, "listen 127.0.0.1"))}
	p.speaks = p.connect()
	silent := []*net.TCPConn{p.connect(), p.connect(), p.connect()}
	f, err := announcer(t).Announce(Generation{Pids: func() ([]int, error) { return []int{app.PID}, nil }, At: []netip.AddrPort{p.at}})
	apptest.Must(t, err)
	p.f = f
	p.speak(0, p.speaks, closedOK)
	mustHold(t, f, Counts{Busy: 1, Silent: 3, Held: 3})
	var mu sync.Mutex
	k := p.keep(Keeping{For: time.Minute, Relays: 1, Dial: successor(t, func(c net.Conn) {
		if !mu.TryLock() {
			t.Error("two at a time")
		}
		expect(t, relayedGet, plainOK)(c)
		mu.Unlock()
	})})
	apptest.Must(t, unix.Kill(app.PID, unix.SIGKILL))
	p.speaks.Close()
	for _, c := range silent {
		_, err := io.WriteString(c, get)
		apptest.Must(t, err)
	}
	for _, c := range silent {
		mustRead(t, c, closedOK)
		c.Close()
	}
	k.mustResult(t, Result{Left: 1, Kept: 3, Relayed: 3})
}

func TestKeptClientLeaves(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Minute})
	p.leave()
	p.silent.Close()
	k.mustResult(t, Result{Left: 2, Kept: 1})
}

func TestKeptClientIsSilentForGood(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Millisecond})
	p.leave()
	mustEnd(t, p.silent)
	k.mustResult(t, Result{Left: 1, Kept: 1, Expired: 1})
}

func TestNothingIsKeptForNoTime(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{})
	p.leave()
	mustEnd(t, p.silent)
	k.mustResult(t, Result{Left: 1, Cut: 1})
}

func TestKeepEndsAtOnce(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Hour})
	p.leave()
	apptest.Eventually(t, "it is kept", func() bool { return p.f.Result().Kept == 1 })
	k.cancel()
	mustEnd(t, p.silent)
	<-k.ended
}

func TestWhatIsNoRequestIsNotRelayed(t *testing.T) {
	for _, text := range []string{"PING\r\n", "\x16\x03\x01\n", repeat("x", 70000), "GET / HTTP/1.1\r\n" + repeat("A: b\r\n", 70000)} {
		p := part(t)
		k := p.keep(Keeping{For: time.Minute})
		p.leave()
		p.send(text)
		if _, err := io.ReadAll(p.silent); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Error(err)
		}
		k.mustResult(t, Result{Left: 1, Kept: 1, Cut: 1})
	}
}

// An app that has read a part of a request since may not lose it to the successor, which would get the rest.
func TestWhatTheAppHasUsedIsNotKept(t *testing.T) {
	p := part(t)
	// As if the request had been on its way through TCP when the connection was held.
	apptest.Must(t, announcer(t).held.Delete(p.cookie(t)))
	p.send(get)
	p.app.Do(t, "read 1 1")
	k := p.keep(Keeping{For: time.Minute})
	p.leave()
	if _, err := io.ReadAll(p.silent); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	k.mustResult(t, Result{Left: 1, Cut: 1})
}

func TestWhatTheAppHasSaidIsNotKept(t *testing.T) {
	p := part(t)
	p.app.Do(t, `write 1 "bye"`)
	k := p.keep(Keeping{For: time.Minute})
	p.leave()
	mustRead(t, p.silent, "bye")
	mustEnd(t, p.silent)
	k.mustResult(t, Result{Left: 1, Cut: 1})
}

// A client that wants the connection closed after its answer waits for the end. Whether it does nobody has seen where it was answered
// right before the announcement.
func TestJustAnsweredClientGetsItsEnd(t *testing.T) {
	for _, leaving := range []string{"close 0", "shutdown 0"} {
		t.Run(leaving, func(t *testing.T) {
			announcer(t)
			p := &parting{t: t, app: apptest.Start(t, "obedient", apptest.Options{})}
			p.at = netip.MustParseAddrPort(p.app.Ask(t, "listen 127.0.0.1"))
			p.silent = p.connect()
			p.speak(0, p.silent, plainOK)
			answered := time.Now()
			var err error
			p.f, err = announcer(t).Announce(Generation{Pids: func() ([]int, error) { return []int{p.app.PID}, nil }, At: []netip.AddrPort{p.at}})
			apptest.Must(t, err)
			t.Cleanup(func() { p.f.Release() })
			announcer(t).spoken.add(p.at)
			mustHold(t, p.f, Counts{Silent: 1, Held: 1})
			p.app.Do(t, leaving)
			k := p.keep(Keeping{For: time.Hour})
			apptest.Eventually(t, "it is kept", func() bool { return p.f.Result().Kept == 1 })
			if took := time.Since(answered); took > recently*time.Millisecond {
				k.cancel()
				<-k.ended
				t.Logf("the machine took %v, after which the answer is none of right before", took)
				return
			}
			mustEnd(t, p.silent)
			k.stop()
			k.mustResult(t, Result{Kept: 1, Expired: 1})
		})
	}
}

// hyper, lighttpd and apache do so when they stop.
func TestWhatTheAppShutsDownIsKept(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			p := partAt(t, host)
			before := info(t, p.silent).Segs_in
			p.app.Do(t, "shutdown 1")
			apptest.Eventually(t, "TCP asks for the window", func() bool { return info(t, p.silent).Segs_in > before })
			k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, relayedGet, plainOK))})
			apptest.Eventually(t, "it is kept", func() bool { return p.f.Result().Kept == 1 })
			p.send(get)
			p.leave()
			mustRead(t, p.silent, closedOK)
			mustEnd(t, p.silent)
			k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
		})
	}
}

// Who starts the server anew soon after must not find its address in use.
func TestAddressOfAHeldConnectionCanBeBound(t *testing.T) {
	p := part(t)
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	for _, c := range p.f.known {
		if c.held == nil {
			continue
		}
		if c.held.window == nil {
			t.Error("the app can send its end")
		}
		mustReuse(t, c.held.fd)
		c.held.openWindow(repairOff)
		mustReuse(t, c.held.fd)
	}
}

func mustReuse(t *testing.T, fd int) {
	t.Helper()
	if reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil || reuse != 1 {
		t.Errorf("SO_REUSEADDR is %d, %v", reuse, err)
	}
}

// An app that says something before the end is heard.
func TestWhatTheAppSaysBeforeItShutsDown(t *testing.T) {
	p := part(t)
	p.app.Do(t, `write 1 "bye"`)
	p.app.Do(t, "shutdown 1")
	k := p.keep(Keeping{For: time.Minute})
	mustRead(t, p.silent, "bye")
	mustEnd(t, p.silent)
	p.leave()
	k.mustResult(t, Result{Left: 1, Cut: 1})
}

func TestAppThatDoesNotEnd(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Minute})
	k.stop()
	k.mustResult(t, Result{Left: 1, Cut: 1})
	p.speak(1, p.silent, plainOK) // no longer held, nor announced
}

func TestAppThatTakesItsTime(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Minute})
	p.speak(1, p.silent, closedOK)
	p.leave()
	mustEnd(t, p.silent)
	k.mustResult(t, Result{Left: 2})
}

// An app that closes thousands is waited for, one that has only lost clients which left by themselves is not.
func TestInputIsHeldFromAnAppThatCloses(t *testing.T) {
	begin := time.Now()
	after := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	p := pace{begun: begin}
	for _, look := range []struct{ at, left, stands int }{
		{10, 1000, 0}, {500, 990, 490}, {900, 900, 0}, {1600, 860, 700}, {1700, 100, 0}, {1800, 90, 0}, {2900, 89, 1100}, {9900, 10, 0}, {10100, 5, 10100},
	} {
		if got := p.stands(after(look.at), look.left); got.Milliseconds() != int64(look.stands) {
			t.Errorf("after %d ms, with %d left, it has stood still for %v, want %d ms", look.at, look.left, got, look.stands)
		}
	}
}

func TestKeepEndsAtOnceThoughTheAppDoesNot(t *testing.T) {
	p := part(t)
	k := p.keep(Keeping{For: time.Minute})
	k.cancel()
	k.mustResult(t, Result{Left: 1, Cut: 1})
}

func (p *parting) cookie(t *testing.T) uint64 {
	t.Helper()
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	for _, c := range p.f.known {
		if c.held != nil {
			return c.cookie
		}
	}
	t.Fatal("nothing is held")
	return 0
}

func TestNothingIsLeftOver(t *testing.T) {
	announcer(t)
	descriptors, goroutines := 0, 0
	for range 3 {
		t.Run("", func(t *testing.T) {
			p := part(t)
			k := p.keep(Keeping{For: time.Minute, Dial: successor(t, expect(t, relayedGet, plainOK))})
			p.leave()
			p.send(get)
			mustRead(t, p.silent, closedOK)
			p.silent.Close()
			k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
		})
		if descriptors == 0 {
			descriptors, goroutines = apptest.Descriptors(t), runtime.NumGoroutine()
		}
	}
	apptest.Eventually(t, "nothing is left over", func() bool {
		return apptest.Descriptors(t) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
	a := announcer(t)
	var cookie uint64
	var r record
	for entries := a.records.Iterate(); entries.Next(&cookie, &r); {
		t.Errorf("a record is left: %+v", r)
	}
}

func TestHeads(t *testing.T) {
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n":                                            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
		"GET / HTTP/1.0\nA: b\n\n":                                          "GET / HTTP/1.0\nConnection: close\r\nA: b\n\n",
		"GET / HTTP/1.1\r\nCONNECTION: Keep-Alive\r\nA: b\r\n\r\n":          "GET / HTTP/1.1\r\nConnection: close\r\nA: b\r\n\r\n",
		"GET / HTTP/1.1\r\nConnection: TE, close\r\nTE: trailers\r\n\r\n":   "GET / HTTP/1.1\r\nConnection: close, TE\r\nTE: trailers\r\n\r\n",
		"GET / HTTP/1.1\r\nConnection: a\r\nConnection: b\r\n\r\n":          "GET / HTTP/1.1\r\nConnection: close, a, b\r\n\r\n",
		"GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nC: d\r\n\r\n": "GET / HTTP/1.1\r\nConnection: Upgrade\r\nC: d\r\n\r\n",
	} {
		reader := bufio.NewReader(strings.NewReader(in + "body"))
		got, err := readHead(reader)
		rest, _ := io.ReadAll(reader)
		if err != nil || string(got) != want || string(rest) != "body" {
			t.Errorf("%q became %q and %q, not %q: %v", in, got, rest, want, err)
		}
	}
}

// Whoever waits for the end of Keep need not wait for an app that takes its time: its connections are its own again.
func TestKeepWithoutPatience(t *testing.T) {
	p := part(t)
	over, end := context.WithCancel(context.Background())
	end()
	k := p.keep(Keeping{For: time.Minute, Patient: over})
	k.mustResult(t, Result{})
	p.speak(1, p.silent, plainOK)
}

func TestKeepWithoutPatienceKeepsWhatIsClosed(t *testing.T) {
	p := part(t)
	over, end := context.WithCancel(context.Background())
	end()
	p.leave()
	k := p.keep(Keeping{For: time.Minute, Patient: over, Dial: successor(t, expect(t, relayedGet, plainOK))})
	p.send(get)
	mustRead(t, p.silent, closedOK)
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1})
}

// Where more connections are silent than grace may keep, those are closed that have been silent the longest.
func TestLongestSilentAreClosedForOthers(t *testing.T) {
	d := &announcer(t).descriptors
	share := d.share(1)
	t.Cleanup(func() { d.share(share) })
	first := part(t)
	kept := first.keep(Keeping{For: time.Hour})
	first.leave()
	apptest.Eventually(t, "it is kept", func() bool { return first.f.Counts().Kept == 1 })
	second := part(t) // whose silent connection is held
	mustEnd(t, first.silent)
	kept.mustResult(t, Result{Left: 1, Kept: 1, Expired: 1})
	more := second.connect()
	mustHold(t, second.f, Counts{Busy: 1, Silent: 2, Held: 1})
	k := second.keep(Keeping{For: time.Hour, Dial: successor(t, expect(t, relayedGet, plainOK))})
	second.leave()
	second.app.Do(t, "close 2")
	mustEnd(t, more)
	second.send(get)
	mustRead(t, second.silent, closedOK)
	second.silent.Close()
	k.mustResult(t, Result{Left: 1, Kept: 1, Relayed: 1, Cut: 1})
}

func (d *descriptors) share(limit int) (before int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, d.limit = d.limit, limit
	return before
}

func TestLongestSilentAreClosedFirst(t *testing.T) {
	d := descriptors{limit: 10, used: 8}
	var closed []int
	for _, seconds := range []int{3, 1, 4, 2} {
		d.add(&waiting{since: time.Unix(int64(seconds), 0), close: func() { closed = append(closed, seconds) }})
	}
	if n := d.closeLongestSilent(2); n > 0 {
		t.Errorf("%d were closed though there is room", n)
	}
	if n := d.closeLongestSilent(4); n != 2 || !slices.Equal(closed, []int{1, 2}) {
		t.Errorf("%d were closed, silent since %d", n, closed)
	}
}
