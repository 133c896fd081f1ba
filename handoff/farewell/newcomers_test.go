package farewell

import (
	"io"
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

// Nobody has to live to see it.
func TestPauseEndsByItself(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, true)
	apptest.Must(t, f.pauseListeners(pauseAtMost))
	r.knock(t)
	r.mustAccept(t)
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
	r := newRoad(t, "127.0.0.1")
	first, second := r.sharing(t, true), r.sharing(t, true)
	apptest.Must(t, first.pauseListeners(apptest.Patience))
	apptest.Must(t, second.pauseListeners(apptest.Patience))
	apptest.Must(t, first.Release())
	r.mustDrop(t, second)
	apptest.Must(t, second.Release())
	r.mustAccept(t)
}

// Where another protocol is spoken the server may be the first to speak, and a client that waits for it sends nothing again.
func TestListenerIsNotPausedWhereNobodySpeaksHTTP(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, false)
	apptest.Must(t, f.pauseListeners(apptest.Patience))
	if len(f.paused) != 0 {
		t.Error("it is paused")
	}
}
