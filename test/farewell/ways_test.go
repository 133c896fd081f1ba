package farewell_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// startNamed runs plain servers that listen at an address: on one socket that they share, or each on its own.
func startNamed(t *testing.T, socket string, flags ...string) (s *harness.Grace, c *control.Client, at string) {
	t.Helper()
	name := fmt.Sprintf("farewell-%x", rand.Uint64())
	flags = append(flags, "--name", name, "--listen", "web=127.0.0.1:0"+socket, "--", harness.PlainBinary(), "fd:3")
	s = harness.Start(t, flags...)
	at = s.Address("web")
	s.AwaitReady(1)
	c, _ = harness.Client(t, name)
	statusOf(t, name, "the programs are loaded", func(s control.Status) bool { return s.Farewell.State != "loading" })
	return s, c, at
}

const (
	shared = ""
	own    = "?steer=true"
)

func TestNothingIsLostHoweverGenerationsChange(t *testing.T) {
	needFarewell(t)
	for name, way := range map[string]struct {
		flags  []string
		change func(s *harness.Grace, c *control.Client)
	}{
		"four instances, one upgrade after another": {[]string{"--instances", "4"}, func(s *harness.Grace, _ *control.Client) {
			s.Upgrades(3)
			s.AwaitGeneration("generation ended", 3)
		}},
		"rollbacks": {nil, func(s *harness.Grace, c *control.Client) {
			for _, what := range []control.Operation{control.Upgrade, control.Rollback, control.Rollback} {
				if r, _ := harness.Ask(t, c, control.Request{Do: what}); r.Outcome != control.Upgraded {
					t.Fatalf("%s: %+v", what, r)
				}
			}
			s.AwaitGeneration("generation ended", 3)
		}},
	} {
		for kind, socket := range map[string]string{"a shared socket": shared, "their own sockets": own} {
			t.Run(name+", "+kind, func(t *testing.T) {
				s, c, at := startNamed(t, socket, append(way.flags, "--settle", "50ms")...)
				harness.UnderLoad(t, load.Config{Addr: at, Clients: busy}, func() { way.change(s, c) })
				s.Stop()
			})
		}
	}
}

// The workers of a cluster have the connections, and their primary has the socket. All die of TERM at once.
func TestClientsOfAClusterLoseNothing(t *testing.T) {
	needFarewell(t)
	harness.Need(t, "node")
	at := freeport.Address(t)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, "--settle", "50ms", "--", "node", harness.Testdata(t, "programs/cluster.js"), port)
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: at, Clients: busy}, func() {
		s.Upgrades(3)
		s.AwaitGeneration("generation ended", 3)
	})
	s.Stop()
}

// askUntilAllTold has clients ask again and again, each until it is told that its connection closes. None may lose a request.
func askUntilAllTold(t *testing.T, clients []*client) {
	t.Helper()
	var asking sync.WaitGroup
	for _, c := range clients {
		asking.Go(func() {
			for closes := false; !closes; {
				answer, err := c.request()
				if err != nil {
					t.Errorf("%s: %v", c.LocalAddr(), err)
					return
				}
				closes = answer.Close
			}
			c.Close()
		})
	}
	asking.Wait()
}

// The clients of what has not failed of an undone generation are its clients still, until they are told to leave.
func TestClientsLeaveAnUndoneGeneration(t *testing.T) {
	needFarewell(t)
	s, _, at := startNamed(t, own, "--settle", "1h", "--instances", "2")
	s.Upgrade(2)
	fails, clients := "", []*client(nil)
	for len(clients) < 10 {
		c := dial(t, at)
		answer, err := c.request()
		if err != nil {
			t.Fatal(err)
		}
		if answer.Header.Get("X-Generation") != "2" {
			t.Fatalf("%v answers new clients", answer.Header)
		}
		if by := answer.Header.Get("X-Pid"); fails == "" || by == fails {
			fails = by
			c.Close() // it would be lost with its instance
			continue
		}
		clients = append(clients, c)
	}
	kill(t, fails)
	silent, asking := clients[0], clients[1:]
	askUntilAllTold(t, asking)
	s.AwaitGeneration("upgrade undone, generation 1 serves again", 2)
	s.AwaitGeneration("generation told to stop", 2)
	if generation, closes := silent.ask(t); generation != "1" || !closes {
		t.Errorf("answered by generation %s, the connection closes: %t", generation, closes)
	}
	want := fmt.Sprintf("closed by their clients: %d; last request answered by the new generation: 1", len(asking))
	if e := s.AwaitGeneration(ended, 2); e.Why != want {
		t.Errorf("why: %s, want %s", e.Why, want)
	}
	s.Stop()
}

func kill(t *testing.T, pid string) {
	t.Helper()
	number, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.Kill(number, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// After a stop nobody answers, so clients that go on asking have to be told before.
func TestStopsLoseNoRequestOfThoseWhoWereNotTold(t *testing.T) {
	needFarewell(t)
	stops := map[string]func(*harness.Grace, *control.Client){
		"TERM": func(s *harness.Grace, _ *control.Client) { s.Signal(syscall.SIGTERM) },
		"grace stop": func(s *harness.Grace, c *control.Client) {
			go c.Ask(s.T.Context(), control.Request{Do: control.Stop}) // its answer is the end of grace
		},
	}
	for name, stop := range stops {
		for kind, socket := range map[string]string{"a shared socket": shared, "own sockets": own} {
			t.Run(name+", "+kind, func(t *testing.T) {
				s, c, at := startNamed(t, socket, "--farewell", "10s", "--instances", "2")
				var clients []*client
				for range 20 {
					clients = append(clients, dial(t, at))
					clients[len(clients)-1].ask(t)
				}
				stop(s, c)
				askUntilAllTold(t, clients)
				s.Ends(0)
				left := 0
				for _, e := range s.Entries() {
					if e.Message == ended {
						left++
						if strings.Contains(e.Why, "cut") {
							t.Errorf("why: %s", e.Why)
						}
					}
				}
				if left != 1 {
					t.Errorf("%d generations have said how their connections ended", left)
				}
			})
		}
	}
}
