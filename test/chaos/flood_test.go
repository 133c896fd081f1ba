package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

// statusFlood asks for the status many times at once; each has to be answered, if only by a refusal.
func statusFlood(g *grace, random *rand.Rand) {
	var all sync.WaitGroup
	for range 20 + random.IntN(80) {
		all.Go(func() {
			_, err := g.status()
			var refused *control.RefusedError
			if err != nil && (!errors.As(err, &refused) || refused.Code != http.StatusServiceUnavailable) {
				g.find("a status is not answered: %v", err)
			}
		})
	}
	all.Wait()
}

// upgradeFlood asks for many upgrades at once: those that come meanwhile together are one.
func upgradeFlood(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Current
	command := another(g, random)
	var all sync.WaitGroup
	for range 2 + random.IntN(20) {
		all.Go(func() {
			g.attemptElsewhere(func() {
				if r := g.mustAsk(control.Request{Do: control.Upgrade, Command: command}); r.Outcome != control.Upgraded {
					g.find("one of many upgrades: %s: %s", r.Outcome, r.Why)
				}
			})
		})
	}
	all.Wait()
	if s := g.await("it serves", serving); s.Current <= before {
		g.find("many upgrades have left generation %d", s.Current)
	}
}

// connect opens connections to the control socket and writes to each; it closes them after the fault.
func (g *grace) connect(count int, write func(net.Conn), during func()) {
	var open []net.Conn
	for range count {
		// A queue that is full refuses (unix(7), EAGAIN), and that is well.
		if conn, err := net.DialTimeout("unix", g.runtime()+"/grace.sock", time.Second); err == nil {
			write(conn)
			open = append(open, conn)
		}
	}
	during()
	for _, conn := range open {
		conn.Close()
	}
}

// write is bounded: a reader may be slow.
func write(conn net.Conn, text []byte) {
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	conn.Write(text) // it may be refused
}

func halfOpen(g *grace, random *rand.Rand) {
	texts := []string{"", "G", "GET /v1/status HTTP/1.1\r\nHost: grace\r\n", "POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nContent-Length: 100\r\n\r\n{"}
	g.connect(10+random.IntN(290), func(conn net.Conn) { write(conn, []byte(pick(random, texts...))) }, func() {
		g.await("a status is answered beside half-open connections", func(control.Status) bool { return true })
	})
}

func garbage(g *grace, random *rand.Rand) {
	g.connect(5+random.IntN(30), func(conn net.Conn) {
		text := make([]byte, random.IntN(100<<10))
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		if random.IntN(2) == 0 {
			text = append([]byte("POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nContent-Length: 1000\r\n\r\n"), text[:min(len(text), 1000)]...)
		}
		write(conn, text)
	}, func() {})
}

// slowReaders ask and do not read.
func slowReaders(g *grace, random *rand.Rand) {
	g.connect(5+random.IntN(30), func(conn net.Conn) {
		for range 1 + random.IntN(50) {
			write(conn, []byte("GET /v1/status HTTP/1.1\r\nHost: grace\r\n\r\n"))
		}
	}, func() {
		g.await("a status is answered beside slow readers", func(control.Status) bool { return true })
	})
}

// unanswered asks for the status where nobody may be able to answer.
func (g *grace) unanswered(random *rand.Rand, count int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range count {
		client := control.NewClient(g.runtime() + "/grace.sock") // a connection of its own
		all.Go(func() {
			defer client.Close()
			_, _ = client.Status(ctx)
		})
	}
	all.Wait()
	pause(random, 500*time.Millisecond)
}
