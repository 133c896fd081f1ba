//go:build linux

package examples

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

func TestWebSocketsAreToldOnceByEachUpgrade(t *testing.T) {
	for _, name := range []string{"websocket", "gorilla"} {
		t.Run(name, func(t *testing.T) {
			if err := supervised.Build("./" + name); err != nil {
				t.Fatal(err)
			}
			addr := freeport.Address(t)
			g := supervised.Grace(t, "--listen", addr, "--", harness.Program(name), "-addr", addr)
			clients := openSockets(t, addr)
			for generation := 2; generation <= upgrades+1; generation++ {
				g.UpgradeNext()
				clients.awaitOpened(t, generation)
			}
			clients.leave()
			g.Stop()
			clients.running.Wait()
			clients.check(t, upgrades+1)
		})
	}
}

// sockets are clients of WebSockets that open the next one when they are told to leave, and never otherwise.
type sockets struct {
	addr    string
	running sync.WaitGroup
	changed chan struct{} // has an element if something has changed since the last receive

	mu      sync.Mutex
	opened  map[int]int // by client
	told    map[int]int
	failed  []error
	leaving bool
}

const socketsOfEachKind = 20

// openSockets returns when each client has its first one.
func openSockets(t *testing.T, addr string) *sockets {
	t.Helper()
	s := &sockets{addr: addr, changed: make(chan struct{}, 1), opened: map[int]int{}, told: map[int]int{}}
	for n := range socketsOfEachKind {
		s.running.Go(func() { s.run(2*n, "/clock", listenTo) })
		s.running.Go(func() { s.run(2*n+1, "/echo", talkTo) })
	}
	s.awaitOpened(t, 1)
	return s
}

func (s *sockets) run(client int, path string, converse func(*websocket.Conn) error) {
	for !s.left() {
		conn, _, err := websocket.DefaultDialer.Dial("ws://"+s.addr+path, nil)
		if err != nil {
			s.note(func() { s.failed = append(s.failed, err) })
			return
		}
		s.note(func() { s.opened[client]++ })
		conn.SetReadDeadline(time.Now().Add(patience))
		err = converse(conn)
		conn.Close()
		if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
			s.note(func() { s.failed = append(s.failed, fmt.Errorf("a client of %s was told: %w", path, err)) })
			return
		}
		s.note(func() { s.told[client]++ })
	}
}

func listenTo(conn *websocket.Conn) error {
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return err
		}
	}
}

func talkTo(conn *websocket.Conn) error {
	for n := 0; ; n++ {
		text := fmt.Sprint("message ", n)
		if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			return err
		}
		_, answer, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		if string(answer) != text {
			return fmt.Errorf("%q comes back as %q", text, answer)
		}
	}
}

func (s *sockets) note(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *sockets) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving
}

// leave has the clients not come back when they are told the next time.
func (s *sockets) leave() { s.note(func() { s.leaving = true }) }

// awaitOpened waits until each client has opened n WebSockets.
func (s *sockets) awaitOpened(t *testing.T, n int) {
	t.Helper()
	for deadline := time.After(patience); ; {
		ready, failed := s.state(n)
		if ready == 2*socketsOfEachKind {
			return
		}
		if len(failed) > 0 {
			t.Fatalf("clients failed: %v", failed)
		}
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("only %d clients have opened %d WebSockets", ready, n)
		}
	}
}

// state tells how many clients have opened n WebSockets.
func (s *sockets) state(n int) (ready int, failed []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, opened := range s.opened {
		if opened >= n {
			ready++
		}
	}
	return ready, s.failed
}

func (s *sockets) check(t *testing.T, n int) {
	t.Helper()
	for _, err := range s.failed {
		t.Error(err)
	}
	for client := range 2 * socketsOfEachKind {
		if s.opened[client] != n || s.told[client] != n {
			t.Errorf("client %d has opened %d WebSockets and was told %d times, not %d", client, s.opened[client], s.told[client], n)
		}
	}
}
