package farewell

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// speaking opens a connection on which HTTP is spoken, and one that is silent after an answer.
func (r *road) speaking(t *testing.T) (speaks, silent *wire) {
	t.Helper()
	silent = r.wire(t)
	silent.ask(t, get)
	silent.answer(t, plainOK)
	silent.mustGet(t, plainOK)
	return r.wire(t), silent
}

func (w *wire) speak(t *testing.T) {
	t.Helper()
	w.ask(t, get)
	w.answer(t, plainOK)
	w.mustGet(t, closedOK)
}

func (w *wire) send200(t *testing.T) {
	t.Helper()
	w.answer(t, plainOK)
	w.mustGet(t, plainOK)
}

// awaitDrop waits until the client's TCP has sent something twice: it was dropped.
func (w *wire) awaitDrop(t *testing.T) {
	t.Helper()
	apptest.Eventually(t, "data is dropped", func() bool { return info(t, w.client).Total_retrans > 0 })
	if n := info(t, w.app).Bytes_received; n != uint64(len(get)) {
		t.Errorf("the app's end has got %d bytes", n)
	}
}

func info(t *testing.T, c *net.TCPConn) *unix.TCPInfo {
	t.Helper()
	raw, err := c.SyscallConn()
	apptest.Must(t, err)
	var info *unix.TCPInfo
	apptest.Must(t, raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }))
	apptest.Must(t, err)
	return info
}

func mustHold(t *testing.T, f *Farewell, want Counts) {
	t.Helper()
	got, err := f.Hold(0)
	apptest.Must(t, err)
	if got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestHeldInputWaitsUntilItIsReleased(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			speaks, silent := newRoad(t, host).speaking(t)
			f := speaks.announce(t)
			speaks.speak(t)
			mustHold(t, f, Counts{Busy: 1, Silent: 1, Held: 1})
			_, err := io.WriteString(silent.client, get)
			apptest.Must(t, err)
			silent.awaitDrop(t)
			apptest.Must(t, f.Release())
			mustRead(t, silent.app, get)
			silent.send200(t)
			// The one that was told is as before, too.
			speaks.ask(t, get)
			speaks.send200(t)
		})
	}
}

func TestWhatIsUsedIsNotHeld(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	speaks, _ := r.speaking(t)
	asked, unread, late, never := r.wire(t), r.wire(t), r.wire(t), r.wire(t)
	asked.ask(t, get)
	unread.request(t, get)
	late.ask(t, get)
	late.send200(t)
	f := speaks.announce(t)
	speaks.speak(t)
	before := info(t, late.app).Bytes_received
	_, err := io.WriteString(late.client, get)
	apptest.Must(t, err)
	apptest.Eventually(t, "it comes", func() bool { return info(t, late.app).Bytes_received > before })
	mustHold(t, f, Counts{Busy: 4, Working: 3, Silent: 2, Held: 2})
	apptest.Must(t, f.Release())
	_ = never
}

func TestOpenRequestsAreWaitedFor(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	before := r.wire(t)
	past := before.announce(t)
	before.speak(t) // an answer to what was asked before the announcement is changed only where HTTP/1 was seen
	mustCount(t, past, Counts{Busy: 1})
	apptest.Must(t, past.Release())
	before.client.Close()
	before.app.Close()
	quick, slow := r.wire(t), r.wire(t)
	quick.ask(t, get)
	slow.ask(t, get)
	f := quick.announce(t)
	answered := make(chan struct{})
	go func() { f.awaitAnswers(apptest.Patience, apptest.Patience); close(answered) }()
	quick.answer(t, plainOK)
	quick.mustGet(t, closedOK)
	select {
	case <-answered:
		t.Error("a request was not waited for")
	default:
	}
	slow.answer(t, plainOK)
	<-answered
	mustCount(t, f, Counts{Busy: 2})
	slow.ask(t, get)
	f.awaitAnswers(apptest.Patience, 0) // others are not answered meanwhile
	mustCount(t, f, Counts{Busy: 2, Working: 1})
}

// withLateApp announces a connection that is silent, and one with a request that the app has not read.
func withLateApp(t *testing.T) (f *Farewell, silent, late *wire) {
	t.Helper()
	r := newRoad(t, "127.0.0.1")
	speaks, silent := r.speaking(t)
	late = r.wire(t)
	f = speaks.announce(t)
	speaks.speak(t)
	late.request(t, get)
	return f, silent, late
}

func TestAnAppThatIsLateIsWaitedFor(t *testing.T) {
	f, _, late := withLateApp(t)
	held := make(chan Counts)
	go func() {
		counts, err := f.Hold(apptest.Patience)
		if err != nil {
			t.Error(err)
		}
		held <- counts
	}()
	read := time.After(2 * (standstill + settleWithin))
	select {
	case <-held:
		t.Fatal("the connections were held while the app had not read a request")
	case <-read:
	}
	mustRead(t, late.app, get)
	late.answer(t, plainOK)
	late.mustGet(t, closedOK)
	if got, want := <-held, (Counts{Busy: 2, Silent: 1, Held: 1}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestWhatIsHeldIsLetGoForAnAppThatIsLate(t *testing.T) {
	f, silent, late := withLateApp(t)
	open, err := f.holdAll()
	apptest.Must(t, err)
	if len(open) != 1 || !f.someUnread(open) {
		t.Errorf("%d requests are open, and read", len(open))
	}
	mustRead(t, late.app, get)
	if f.someUnread(open) {
		t.Error("what was read counts as unread")
	}
	f.letAllGo()
	silent.ask(t, get)
}

// A server that is told to stop closes a connection on which a request has just come, and that it takes for idle.
func TestRequestThatComesRightBeforeTheHoldIsWaitedFor(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	speaks, late := r.speaking(t)
	f := speaks.announce(t)
	speaks.speak(t)
	known, err := f.settle()
	apptest.Must(t, err)
	before := info(t, late.app).Bytes_received
	_, err = io.WriteString(late.client, get)
	apptest.Must(t, err)
	apptest.Eventually(t, "it comes", func() bool { return info(t, late.app).Bytes_received > before })
	apptest.Must(t, f.holdSilent())
	if open := f.awaitLate(known); len(open) != 1 || !f.someUnread(open) {
		t.Errorf("%d requests came late, and were read", len(open))
	}
	mustRead(t, late.app, get)
	late.answer(t, plainOK)
	late.mustGet(t, closedOK)
	if open := f.awaitLate(known); len(open) != 0 {
		t.Errorf("%d requests are still waited for", len(open))
	}
}

// request waits until what was asked has come.
func (w *wire) request(t *testing.T, request string) {
	t.Helper()
	_, err := io.WriteString(w.client, request)
	apptest.Must(t, err)
	apptest.Eventually(t, "it comes", func() bool { return info(t, w.app).Bytes_received == uint64(len(request)) })
}

func TestNothingIsHeldWhereNobodySpeaksHTTP(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	_, silent := r.speaking(t)
	speaks := r.wire(t)
	f := silent.announce(t)
	speaks.ask(t, "PING\r\n")
	speaks.answer(t, "+PONG\r\n")
	speaks.mustGet(t, "+PONG\r\n")
	got, err := f.Hold(0)
	apptest.Must(t, err)
	if got.Held != 0 {
		t.Errorf("%+v", got)
	}
}

func TestCounts(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	first, second := r.wire(t), r.wire(t)
	f := first.announce(t)
	mustCount(t, f, Counts{Silent: 2})
	first.speak(t)
	mustCount(t, f, Counts{Busy: 1, Silent: 1})
	first.client.Close()
	first.app.Close()
	third := r.wire(t)
	mustCount(t, f, Counts{Left: 1, Silent: 2})
	third.speak(t) // who comes later is told, too
	second.client.Close()
	second.app.Close()
	mustCount(t, f, Counts{Left: 2, Busy: 1})
	apptest.Must(t, f.Release())
	if _, err := f.Look(); err == nil {
		t.Error("looked after the end")
	}
}

func init() { apptest.Roles["holder"] = holdAndWait }

// holdAndWait is a grace that is going to be killed: it announces the connections of a process, and holds them when it is told.
func holdAndWait() {
	a, err := Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	pid, _ := strconv.Atoi(os.Getenv("PID"))
	var f *Farewell
	apptest.Obey(func(order string) string {
		if order == "hold" {
			got, err := f.Hold(0)
			return fmt.Sprint(got.Held, err)
		}
		f, err = a.Announce(Generation{Pids: func() ([]int, error) { return []int{pid}, nil }, At: []netip.AddrPort{netip.MustParseAddrPort(order)}})
		return fmt.Sprint(err)
	})
}

func startHolder(t *testing.T, at netip.AddrPort) *apptest.App {
	t.Helper()
	announcer(t)
	holder := apptest.Start(t, "holder", apptest.Options{Env: []string{fmt.Sprintf("PID=%d", os.Getpid())}})
	holder.Do(t, at.String())
	return holder
}

func TestWhoeverAnnouncesDies(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	speaks, silent := r.speaking(t)
	holder := startHolder(t, r.at)
	speaks.speak(t)
	if got := holder.Ask(t, "hold"); got != "1 <nil>" {
		t.Fatal(got)
	}
	_, err := io.WriteString(silent.client, get)
	apptest.Must(t, err)
	silent.awaitDrop(t)
	apptest.Must(t, unix.Kill(holder.PID, unix.SIGKILL))
	holder.Wait()
	// The lease ends by itself, and the client's TCP tries again.
	mustRead(t, silent.app, get)
	silent.send200(t)
	speaks.ask(t, get)
	speaks.send200(t)
	// A successor does it all again.
	f := speaks.announce(t)
	speaks.speak(t)
	silent.speak(t)
	mustCount(t, f, Counts{Busy: 2})
}

func TestTwoAnnouncers(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	first := startHolder(t, w.at)
	f := w.announce(t)
	mustCount(t, f, Counts{Untold: 1})
	w.speak(t) // by the first
	apptest.Must(t, unix.Kill(first.PID, unix.SIGKILL))
	first.Wait()
	apptest.Eventually(t, "the second has it, as soon as the kernel lets it go", func() bool {
		counts, err := f.Look()
		apptest.Must(t, err)
		return counts.Untold == 0
	})
	w.speak(t)
	apptest.Must(t, f.Release())
	w.ask(t, get)
	w.send200(t)
}
