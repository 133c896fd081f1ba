package farewell

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/internal/requirement"
)

// opened is for all tests: to load the programs takes a second.
var opened = sync.OnceValues(Open)

func announcer(t *testing.T) *Announcer {
	t.Helper()
	a, err := opened()
	if err != nil {
		requirement.Check(t, "bpf", err)
	}
	return a
}

// road is where clients come in to an app that is this process.
type road struct {
	listener net.Listener
	at       netip.AddrPort
}

func newRoad(t *testing.T, host string) *road {
	t.Helper()
	plain := net.ListenConfig{}
	plain.SetMultipathTCP(false)
	listener, err := plain.Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	apptest.Must(t, err)
	t.Cleanup(func() { listener.Close() })
	return &road{listener, netip.MustParseAddrPort(listener.Addr().String())}
}

// wire is a connection whose app is this process.
type wire struct {
	client, app *net.TCPConn
	at          netip.AddrPort
}

func newWire(t *testing.T, host string) *wire {
	t.Helper()
	return newRoad(t, host).wire(t)
}

func (r *road) wire(t *testing.T) *wire {
	t.Helper()
	client := apptest.Dial(t, "tcp", r.at.String()).(*net.TCPConn)
	app, err := r.listener.Accept()
	apptest.Must(t, err)
	t.Cleanup(func() { app.Close() })
	for _, c := range []net.Conn{client, app} {
		apptest.Must(t, c.SetDeadline(time.Now().Add(apptest.Patience)))
	}
	return &wire{client, app.(*net.TCPConn), r.at}
}

func own() ([]int, error) { return []int{os.Getpid()}, nil }

// announce announces the connections that come in at the wire's address.
func (w *wire) announce(t *testing.T) *Farewell {
	t.Helper()
	f, err := announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{w.at}})
	apptest.Must(t, err)
	t.Cleanup(func() { f.Release() })
	return f
}

// ask sends from the client, and reads it all at the app.
func (w *wire) ask(t *testing.T, request string) {
	t.Helper()
	_, err := io.WriteString(w.client, request)
	apptest.Must(t, err)
	mustRead(t, w.app, request)
}

// answer sends from the app, each part in a message of its own.
func (w *wire) answer(t *testing.T, parts ...string) {
	t.Helper()
	apptest.Must(t, w.send(parts...))
}

func (w *wire) send(parts ...string) error {
	for _, part := range parts {
		if n, err := io.WriteString(w.app, part); err != nil || n != len(part) {
			return fmt.Errorf("the app wrote %d of %d bytes: %w", n, len(part), err)
		}
	}
	return nil
}

func (w *wire) mustGet(t *testing.T, want string) {
	t.Helper()
	mustRead(t, w.client, want)
}

func mustRead(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(from, got)
	if err != nil || string(got) != want {
		t.Fatalf("got %s, not %s: %v", short(string(got[:n])), short(want), err)
	}
}

func short(s string) string {
	if len(s) > 400 {
		return fmt.Sprintf("%q ... %q (%d bytes)", s[:200], s[len(s)-200:], len(s))
	}
	return fmt.Sprintf("%q", s)
}

const (
	get      = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	plainOK  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	closedOK = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
)

func mustCount(t *testing.T, f *Farewell, want Counts) {
	t.Helper()
	var got Counts
	apptest.Eventually(t, fmt.Sprintf("%+v", want), func() bool {
		var err error
		got, err = f.Look()
		apptest.Must(t, err)
		return got == want
	})
}

// mustEnd wants the end of a connection, and not one more byte.
func mustEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Fatalf("%s came instead of the end: %v", short(string(rest)), err)
	}
}

func repeat(s string, size int) string { return strings.Repeat(s, size/len(s)+1)[:size] }

// Who only wants the counts gets them while a look takes its time, and begins none.
func TestCountsWaitForNoLook(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	looks, looking, goOn := 0, make(chan struct{}), make(chan struct{})
	slow := func() ([]int, error) {
		if looks++; looks == 3 { // Announce asks twice, since the process is new to it
			close(looking)
			<-goOn
		}
		return own()
	}
	f, err := announcer(t).Announce(Generation{Pids: slow, At: []netip.AddrPort{w.at}})
	apptest.Must(t, err)
	ended := make(chan error)
	go func() {
		_, err := f.Look()
		ended <- err
	}()
	<-looking
	for range 1000 {
		if got, want := f.Counts(), (Counts{Silent: 1}); got != want {
			t.Fatalf("%+v, not %+v", got, want)
		}
	}
	close(goOn)
	apptest.Must(t, <-ended)
	if looks != 3 {
		t.Errorf("there were %d looks", looks)
	}
	apptest.Must(t, f.Release())
}
