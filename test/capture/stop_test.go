package capture

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// blunt is an app with sockets of its own that dies of its stop signal.
type blunt struct {
	*harness.Grace
	network, addr string
}

var bluntWays = map[string]func(t *testing.T) blunt{
	"captured": func(t *testing.T) blunt {
		addr := freeport.Address(t)
		_, port, _ := net.SplitHostPort(addr)
		return startBlunt(t, "tcp", addr, nil, port)
	},
	"captured, after a delay": func(t *testing.T) blunt {
		addr := freeport.Address(t)
		_, port, _ := net.SplitHostPort(addr)
		return startBlunt(t, "tcp", addr, []string{"--drain-delay", "10ms"}, port)
	},
	"steered": func(t *testing.T) blunt {
		b := startBlunt(t, "tcp", "", []string{"--listen", "web=127.0.0.1:0?steer=true"}, "fd")
		b.addr = b.Address("web")
		return b
	},
	"steered unix socket": func(t *testing.T) blunt {
		path := filepath.Join(harness.WorldFolder(t), "socket")
		return startBlunt(t, "unix", path, []string{"--listen", "web=unix://" + path + "?steer=true"}, "fd")
	},
	"captured unix socket": func(t *testing.T) blunt {
		path := filepath.Join(harness.WorldFolder(t), "socket")
		return startBlunt(t, "unix", path, []string{"--capture-unix", path}, path)
	},
}

func startBlunt(t *testing.T, network, addr string, flags []string, at string) blunt {
	t.Helper()
	harness.Need(t, "python3")
	program := harness.Testdata(t, "servers/blunt.py")
	flags = append(flags, "--drain-timeout", "10m", "--", "python3", program, at)
	b := blunt{harness.Start(t, flags...), network, addr}
	b.AwaitReady(1)
	return b
}

// request is one whose answer has not come.
func (b blunt) request(path string) net.Conn {
	b.T.Helper()
	conn, err := net.Dial(b.network, b.addr)
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		b.T.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
	return conn
}

func answered(conn net.Conn) error {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "HTTP/1.1 200 OK\r\n" {
		err = fmt.Errorf("the answer begins with %q", line)
	}
	return err
}

// freeze stops the app, so that clients wait in its queue.
func (b blunt) freeze() (thaw func()) {
	b.T.Helper()
	app := b.AwaitInstance("instance ready", 1).PID
	send := func(signal syscall.Signal) {
		if err := syscall.Kill(app, signal); err != nil {
			b.T.Fatal(err)
		}
	}
	send(syscall.SIGSTOP)
	return func() { send(syscall.SIGCONT) }
}

func TestStopAnswersWhoWaits(t *testing.T) {
	for name, start := range bluntWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			thaw := b.freeze()
			waiting := make([]net.Conn, 10)
			for i := range waiting {
				waiting[i] = b.request("/")
			}
			b.Signal(syscall.SIGTERM)
			b.AwaitMessage("generation draining")
			late := make(chan error)
			go func() {
				conn, err := net.DialTimeout(b.network, b.addr, harness.Patience)
				if err == nil {
					conn.Close()
				}
				late <- err
			}()
			thaw()
			for i, conn := range waiting {
				if err := answered(conn); err != nil {
					t.Errorf("client %d of %d was not answered: %v", i+1, len(waiting), err)
				}
				conn.Close()
			}
			b.Ends(0)
			if err := <-late; !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
				t.Errorf("who came after the stop was not refused: %v", err)
			}
		})
	}
}

func TestStopAnswersARequestInFlight(t *testing.T) {
	for name, start := range bluntWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, file := start(t), filepath.Join(t.TempDir(), "go")
			conn := b.request(file)
			b.Signal(syscall.SIGTERM)
			b.AwaitMessage("generation draining")
			harness.Touch(t, file)
			if err := answered(conn); err != nil {
				t.Error(err)
			}
			conn.Close()
			b.Ends(0)
		})
	}
}

func TestSecondStopDoesNotWaitForClients(t *testing.T) {
	for name, start := range bluntWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			b.freeze()
			b.request("/")
			b.Signal(syscall.SIGTERM)
			b.AwaitMessage("generation draining")
			b.SignalUntilStoppingAtOnce(syscall.SIGTERM)
			b.Ends(137)
		})
	}
}

// While the app finishes what it has, nobody is kept waiting for it in vain.
func TestStoppedAppThatHasClosedItsListenerRefuses(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	s := harness.Start(t, "--empty", "0s", "--drain-timeout", "10m", "--", harness.AppBinary(), "-addr", addr)
	s.AwaitReady(1)
	request := harness.BeginRequest(t, addr)
	s.Signal(syscall.SIGTERM)
	s.AwaitMessage("generation told to stop")
	conn, err := net.DialTimeout("tcp", addr, harness.Patience)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a client was not refused: %v, %v", conn, err)
	}
	request.Finish()
	s.Ends(0)
}
