package lifecycle

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/test/harness"
)

// The app is frozen, so that its clients are in the queue when it is to be told to stop.
func TestStopAnswersWhoIsInASharedQueue(t *testing.T) {
	asItIs := func(*exec.Cmd) {}
	for name, way := range map[string]struct {
		network, address string
		as               func(*exec.Cmd)
	}{
		"tcp":           {"tcp", "127.0.0.1:0", asItIs},
		"tcp by nobody": {"tcp", "127.0.0.1:0", harness.AsNobody},
		"unix":          {"unix", "unix://" + filepath.Join(harness.WorldFolder(t), "s"), asItIs},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Need(t, "python3")
			t.Parallel()
			s := harness.StartWith(t, way.as, "--listen", "web="+way.address, "--farewell", "0s", "--drain-timeout", "10m", "--", "python3", harness.Testdata(t, "servers/closing.py"))
			at := s.Address("web")
			s.AwaitReady(1)
			app := s.AwaitInstance("instance ready", 1).PID
			signal(t, app, syscall.SIGSTOP)
			waiting := make([]net.Conn, 10)
			for i := range waiting {
				waiting[i] = askAt(t, way.network, at)
			}
			s.Signal(syscall.SIGTERM)
			harness.AwaitTurnedAway(t, way.network, at)
			signal(t, app, syscall.SIGCONT)
			for i, conn := range waiting {
				if err := answerOf(conn); err != nil {
					t.Errorf("client %d of %d: %v", i+1, len(waiting), err)
				}
			}
			s.Ends(0)
		})
	}
}

func signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// Who connects while grace stops is refused or answered: there is nothing between. At a unix path nobody can tell how far a client is.
func TestStopUnderLoadResetsNobody(t *testing.T) {
	for range 4 {
		stopUnder(t, harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3"))
	}
}

func stopUnder(t *testing.T, s *harness.Grace) {
	t.Helper()
	at := s.Address("web")
	s.AwaitReady(1)
	c := connectAgain(t, 24, at)
	harness.Until(t, "all have been answered", func() bool { return c.answered.Load() > 240 })
	s.Signal(syscall.SIGTERM)
	s.Ends(0)
	c.end()
	t.Logf("%d requests were answered", c.answered.Load())
}

// crowd are clients that connect for each request, until they are refused.
type crowd struct {
	answered atomic.Int64
	clients  sync.WaitGroup
	lost     chan error
}

func connectAgain(t *testing.T, clients int, at string) *crowd {
	c := &crowd{lost: make(chan error, clients)}
	for range clients {
		c.clients.Go(func() {
			for {
				conn, err := net.DialTimeout("tcp", at, harness.Patience)
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err == nil {
					err = request(conn)
				}
				if err == nil {
					err = answerOf(conn)
				}
				if err != nil {
					c.lost <- err
					return
				}
				c.answered.Add(1)
			}
		})
	}
	t.Cleanup(func() {
		for err := range c.lost {
			t.Errorf("a client that was not refused got no answer: %v", err)
		}
	})
	return c
}

// end returns when all have been refused, or have lost a request.
func (c *crowd) end() {
	c.clients.Wait()
	close(c.lost)
}

func askAt(t *testing.T, network, at string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := request(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func request(conn net.Conn) error {
	err := conn.SetDeadline(time.Now().Add(harness.Patience))
	if err == nil {
		_, err = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	return err
}

func answerOf(conn net.Conn) error {
	defer conn.Close()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return err
}
