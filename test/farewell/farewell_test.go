package farewell_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// busy clients keep their connections, and ask again at once or soon.
var busy = map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 12, load.KeepAlivePost: 8, load.Slow: 2}

const upgrades = 10

// plain has a server that knows nothing of grace: on a socket that its generations share, on sockets of grace's that they
// do not share, and on one of its own.
var plain = map[string]func(t *testing.T) (s *harness.Grace, at string){
	"held": func(t *testing.T) (*harness.Grace, string) {
		s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
		return s, s.Address("web")
	},
	"steered": func(t *testing.T) (*harness.Grace, string) {
		s := harness.Start(t, "--settle", "50ms", "--listen", "web=127.0.0.1:0?steer=true", "--", harness.PlainBinary(), "fd:3")
		return s, s.Address("web")
	},
	"captured": func(t *testing.T) (*harness.Grace, string) {
		at := freeport.Address(t)
		return harness.Start(t, "--settle", "50ms", "--", harness.PlainBinary(), at), at
	},
}

func TestBusyClientsLoseNothing(t *testing.T) {
	needFarewell(t)
	for name, start := range plain {
		t.Run(name, func(t *testing.T) {
			s, at := start(t)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: at, Clients: busy}, func() {
				for generation := 2; generation <= upgrades+1; generation++ {
					s.Upgrade(generation)
					s.AwaitDrained()
				}
			})
			s.Stop()
			for _, e := range s.Entries() {
				// On a shared socket there are those, too, that were answered before they were found.
				if name != "held" && e.Message == ended && strings.Contains(e.Why, "cut") {
					t.Errorf("generation %d: %s", e.Generation, e.Why)
				}
			}
		})
	}
}

const ended = "kept-alive connections have ended"

// client has a connection on which it has had an answer.
type client struct {
	net.Conn
	answers *bufio.Reader
}

func dial(t *testing.T, at string) *client {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c)}
}

// ask gives the generation that has answered, and whether it wants no further request.
func (c *client) ask(t *testing.T) (generation string, closes bool) {
	t.Helper()
	answer, err := c.request()
	if err != nil {
		t.Fatal(err)
	}
	return answer.Header.Get("X-Generation"), answer.Close
}

// request gives an answer that was read to its end.
func (c *client) request() (*http.Response, error) {
	if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return answer, err
}

// askUntilTold asks until an answer says that the connection closes.
func (c *client) askUntilTold(t *testing.T) (generation string) {
	t.Helper()
	harness.Until(t, "an answer says that the connection closes", func() (closes bool) {
		generation, closes = c.ask(t)
		return closes
	})
	return generation
}

// The app closes them at its end. What they ask after that is answered by its successor.
func TestSilentClientsAreAnsweredByTheSuccessor(t *testing.T) {
	needFarewell(t)
	for name, start := range plain {
		t.Run(name, func(t *testing.T) {
			s, at := start(t)
			s.AwaitReady(1)
			var clients []*client
			for range 20 {
				c := dial(t, at)
				if generation, closes := c.ask(t); generation != "1" || closes {
					t.Fatalf("answered by generation %s, the connection closes: %t", generation, closes)
				}
				clients = append(clients, c)
			}
			busy := dial(t, at) // only where HTTP/1 is seen to be spoken silent connections are kept
			s.Signal(syscall.SIGHUP)
			busy.askUntilTold(t)
			s.AwaitReady(2)
			s.AwaitGeneration("instance ended", 1)
			for _, c := range clients {
				if generation, closes := c.ask(t); generation != "2" || !closes {
					t.Errorf("answered by generation %s, the connection closes: %t", generation, closes)
				}
			}
			if e := s.AwaitGeneration(ended, 1); !strings.Contains(e.Why, "answered by the new generation: 20") {
				t.Errorf("why: %s", e.Why)
			}
			s.Stop()
		})
	}
}

// keepSilent has the first generation end while one of its clients is silent.
func keepSilent(t *testing.T, s *harness.Grace) (silent *client) {
	t.Helper()
	at := s.Address("web")
	s.AwaitReady(1)
	silent, busy := dial(t, at), dial(t, at)
	silent.ask(t)
	s.Signal(syscall.SIGHUP)
	busy.askUntilTold(t)
	s.AwaitReady(2)
	s.AwaitGeneration("instance ended", 1)
	return silent
}

func TestStopWaitsForNoSilentClient(t *testing.T) {
	needFarewell(t)
	s := harness.Start(t, "--keep", "1h", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	keepSilent(t, s)
	s.Stop()
	if e := s.AwaitGeneration(ended, 1); !strings.HasSuffix(e.Why, "closed by grace without a last request: 1") {
		t.Errorf("why: %s", e.Why)
	}
}

// At the end of grace nobody else answers, but clients are told before their connections close.
func TestStopTellsClientsFirst(t *testing.T) {
	needFarewell(t)
	s := harness.Start(t, "--farewell", "5s", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	at := s.Address("web")
	s.AwaitReady(1)
	c := dial(t, at)
	c.ask(t)
	s.Signal(syscall.SIGTERM)
	s.AwaitMessage("stopping")
	if generation := c.askUntilTold(t); generation != "1" {
		t.Errorf("generation %s has answered", generation)
	}
	if status := s.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestNothingIsHeldWhereItIsTurnedOff(t *testing.T) {
	s := harness.Start(t, "--farewell", "0s", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
	at := s.Address("web")
	s.AwaitReady(1)
	c := dial(t, at)
	c.ask(t)
	s.Upgrade(2)
	s.AwaitDrained()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v: the app has closed the connection", n, err)
	}
	s.Stop()
	if s.Said(ended) {
		t.Error("clients were asked to leave")
	}
}

func TestFarewellLeavesNothingOpen(t *testing.T) {
	needFarewell(t)
	s, _ := plain["steered"](t)
	s.AwaitReady(1)
	before := processDescriptors(t, s)
	for generation := 2; generation <= 4; generation++ {
		s.Upgrade(generation)
		s.AwaitDrained()
	}
	harness.Until(t, "no process of an ended generation is held", func() bool { return processDescriptors(t, s) == before })
	s.Stop()
}

// processDescriptors counts grace's pidfds.
func processDescriptors(t *testing.T, s *harness.Grace) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		to, err := os.Readlink(link)
		if err == nil && strings.Contains(to, "pidfd") { // others may be closed meanwhile
			n++
		}
	}
	return n
}
