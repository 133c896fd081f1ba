package farewell

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

// sharing announces the connections of a listener that is shared. HTTP is spoken there, if told so.
func (r *road) sharing(t *testing.T, http bool) *Farewell {
	t.Helper()
	speaks := r.wire(t)
	var fd int
	apptest.Control(r.listener, func(listener int) { fd = listener })
	f, err := announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{r.at}, Shared: []int{fd}})
	apptest.Must(t, err)
	t.Cleanup(func() { f.Release() })
	seen := &f.announcer.spoken
	seen.mu.Lock()
	delete(seen.at, r.at) // the port may have been another test's
	seen.mu.Unlock()
	if http {
		speaks.speak(t)
		_, err = f.Look()
		apptest.Must(t, err)
		f.learnAll()
	}
	return f
}

// knock connects and asks.
func (r *road) knock(t *testing.T) *net.TCPConn {
	t.Helper()
	client := apptest.Dial(t, "tcp", r.at.String()).(*net.TCPConn)
	_, err := io.WriteString(client, get)
	apptest.Must(t, err)
	return client
}

func (r *road) mustAccept(t *testing.T) {
	t.Helper()
	app, err := r.listener.Accept()
	apptest.Must(t, err)
	defer app.Close()
	apptest.Must(t, app.SetDeadline(time.Now().Add(apptest.Patience)))
	mustRead(t, app, get)
}

// mustDrop wants a request to be dropped, and nobody to wait to be accepted.
func (r *road) mustDrop(t *testing.T, f *Farewell) {
	t.Helper()
	client := r.knock(t)
	apptest.Eventually(t, "the request is dropped", func() bool { return info(t, client).Total_retrans > 0 })
	if n := queued(f.paused[0].fd); n != 0 {
		t.Errorf("%d wait to be accepted", n)
	}
}

func TestNobodyIsAcceptedWhileAListenerIsPaused(t *testing.T) {
	withoutParking(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			r := newRoad(t, host)
			f := r.sharing(t, true)
			apptest.Must(t, f.pauseListeners(apptest.Patience))
			r.mustDrop(t, f)
			apptest.Must(t, f.Release())
			r.mustAccept(t)
		})
	}
}

// Nobody has to do anything for it.
func TestPauseEndsByItself(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T){"dropped": withoutParking, "parked": func(t *testing.T) { parkingAnnouncer(t) }} {
		t.Run(name, func(t *testing.T) {
			prepare(t)
			r := newRoad(t, "127.0.0.1")
			f := r.sharing(t, true)
			apptest.Must(t, f.pauseListeners(pauseAtMost))
			r.knock(t)
			r.mustAccept(t)
			apptest.Must(t, f.Release())
			r.knock(t)
			r.mustAccept(t)
		})
	}
}

func TestListenerThatIsClosedIsPausedNoMore(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, true)
	apptest.Must(t, f.pauseListeners(apptest.Patience))
	sockets, err := f.processes.sockets()
	apptest.Must(t, err)
	f.endPauses(sockets)
	if len(f.paused) != 1 {
		t.Fatal("it is open, and paused no more")
	}
	delete(sockets, f.paused[0].inode)
	f.endPauses(sockets)
	if len(f.paused) != 0 {
		t.Error("it is closed, and paused still")
	}
	r.knock(t)
	r.mustAccept(t)
}

// Of two generations that end at the same time the first to have gone must not let clients in to the other.
func TestListenerIsPausedAsLongAsAnyGenerationNeedsIt(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	first, second := r.sharing(t, true), r.sharing(t, true)
	apptest.Must(t, first.pauseListeners(apptest.Patience))
	apptest.Must(t, second.pauseListeners(apptest.Patience))
	apptest.Must(t, first.Release())
	r.mustWait(t, second)
	apptest.Must(t, second.Release())
	r.mustAccept(t)
}

// Where another protocol is spoken the server may be the first to speak, and a client that waits for it sends nothing again.
func TestNothingIsDroppedWhereNobodySpeaksHTTP(t *testing.T) {
	withoutParking(t)
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, false)
	apptest.Must(t, f.pauseListeners(apptest.Patience))
	if len(f.paused) != 0 {
		t.Error("it is paused")
	}
}

// Who has closed his connection is not waited for.
func TestClientThatHasLeftAsksNothing(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	w := r.wire(t)
	f := w.announce(t)
	f.mu.Lock()
	for _, c := range f.known {
		c.fresh = time.Now().Add(apptest.Patience) // however slow the machine is
	}
	f.mu.Unlock()
	if !f.someFresh() {
		t.Fatal("nobody is expected to ask")
	}
	apptest.Must(t, w.client.Close())
	apptest.Eventually(t, "nobody is waited for", func() bool { return !f.someFresh() })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.known {
		if !f.fresh(c) {
			t.Error("it took as long as if the client had not left")
		}
	}
}

// A request comes at any moment of an announcement, and once.
func TestRequestThatComesDuringTheAnnouncement(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	for range 500 {
		w := r.wire(t)
		sent := make(chan error, 1)
		begin := make(chan struct{})
		go func() {
			<-begin
			for late := time.Now().Add(rand.N(600 * time.Microsecond)); time.Now().Before(late); {
			}
			_, err := io.WriteString(w.client, get)
			sent <- err
		}()
		close(begin)
		f := w.announce(t)
		apptest.Must(t, <-sent)
		mustRead(t, w.app, get)
		if f.someFresh() {
			t.Fatal("the client is expected to ask, and has")
		}
		w.answer(t, plainOK)
		if open := f.open(); len(open) > 0 {
			t.Fatalf("the answer has been sent, and is waited for: %+v", open[0])
		}
		apptest.Must(t, f.Release())
		apptest.Must(t, w.app.Close())
		apptest.Must(t, w.client.Close())
	}
}

// As long as that is so, nothing is looked at.
func TestOneThatIsStillBusy(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	w := r.wire(t)
	w.ask(t, get)
	f := w.announce(t)
	if !f.stillBusy() {
		t.Error("it is not busy any more")
	}
	f.shared = []int{0}
	if f.stillBusy() {
		t.Error("others come, and it is not looked")
	}
	f.shared = nil
	apptest.Must(t, w.app.Close())
	if f.stillBusy() {
		t.Error("it is closed, and busy")
	}
}
