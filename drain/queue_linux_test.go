package drain

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestConnectionsInTheQueueAreServed(t *testing.T) {
	s := serve(t, &http.Server{Handler: http.HandlerFunc(echo)}, newGatedListener(t), Linger(forever))
	var waiting []*client
	for n := range 50 {
		c := connect(t, s.addr)
		if err := c.send("/", fmt.Sprint("client ", n)); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	s.cancel()
	for n, c := range waiting {
		c.mustReceive(t, fmt.Sprint("client ", n), true)
		c.mustEnd(t)
	}
	s.end("")
}

// On a busy machine it takes longer to empty a queue than to fill it.
func TestQueueIsEmptiedHoweverLongThatTakes(t *testing.T) {
	ln := listen(t)
	const waiting = 5
	for range waiting {
		connect(t, ln.Addr())
	}
	for deadline := time.Now().Add(testTimeout); queueLength(ln) < waiting; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait in the queue", queueLength(ln))
		}
	}
	l := NewListener(ln)
	l.stop()
	l.until = time.Now()
	for n := range waiting {
		conn, err := l.Accept()
		if err != nil {
			t.Fatalf("%d came out of the queue, then %v", n, err)
		}
		conn.Close()
	}
	mustBeStopped(t, l)
}

// thief is a listener that another process shares: it takes the connection between the look and Accept.
type thief struct {
	*gatedListener
	other net.Listener
	loot  chan net.Conn
}

func (l *thief) Accept() (net.Conn, error) {
	<-l.gate
	if waits, _ := queued(l.TCPListener); waits {
		conn, err := l.other.Accept()
		if err != nil {
			return nil, err
		}
		l.loot <- conn
	}
	return l.TCPListener.Accept()
}

func TestConnectionThatAnotherProcessTookIsNotWaitedFor(t *testing.T) {
	gated := newGatedListener(t)
	file, err := gated.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	other, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l := &thief{gated, other, make(chan net.Conn, 10)}
	s := serve(t, &http.Server{Handler: http.HandlerFunc(echo)}, l)
	connect(t, s.addr)
	s.cancel()
	s.end("")
	receive(t, l.loot).Close()
}

func TestQueueIsSeen(t *testing.T) {
	ln := listen(t)
	mustSee(t, "an empty queue", ln, false, true)
	connect(t, ln.Addr())
	mustSee(t, "a connection", ln, true, true)
	mustSee(t, "a listener without a descriptor", struct{ net.Listener }{ln}, false, false)
	ln.Close()
	mustSee(t, "a closed listener", ln, false, false)
}

func mustSee(t *testing.T, what string, ln net.Listener, wantWaits, wantSeen bool) {
	t.Helper()
	if waits, seen := queued(ln); waits != wantWaits || seen != wantSeen {
		t.Errorf("%s: waits %v, seen %v", what, waits, seen)
	}
}
