package sockdiag

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["hoarder"] = hoarder
	apptest.Roles["counter"] = counter
	apptest.Roles["zombie"] = func() {}
}

// counter answers a pid with its number of connections, and "zombie" with that of a child that ended.
func counter() {
	apptest.Obey(func(order string) string {
		pid, err := strconv.Atoi(order)
		if err != nil {
			pid, err = syscall.ForkExec("/proc/self/exe", []string{"zombie"}, &syscall.ProcAttr{Env: []string{apptest.RoleVariable + "=zombie"}})
			if err != nil {
				return err.Error()
			}
			unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		}
		n, err := Connections[Listener]([]int{pid}, nil)
		return fmt.Sprint(n, err)
	})
}

// hoarder accepts a connection from its first socket for every "accept" and keeps it; "close" closes the oldest,
// "dial NETWORK ADDR" opens one of its own.
func hoarder() {
	ln, err := net.FileListener(os.NewFile(3, "inherited"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var kept []net.Conn
	apptest.Obey(func(order string) string {
		words := strings.Fields(order)
		var conn net.Conn
		var err error
		switch words[0] {
		case "accept":
			conn, err = ln.Accept()
		case "dial":
			conn, err = net.Dial(words[1], words[2])
		case "close":
			err = kept[0].Close()
			kept = kept[1:]
		}
		if conn != nil {
			kept = append(kept, conn)
		}
		return fmt.Sprint(err)
	})
}

func inFlight(t *testing.T, pids []int, listeners ...*heldListener) int {
	t.Helper()
	n, err := Connections(pids, listeners)
	apptest.Must(t, err)
	return n
}

func queuedAt(t *testing.T, l *heldListener) int {
	t.Helper()
	n, err := QueuedEach([]*heldListener{l})
	apptest.Must(t, err)
	return n[0]
}

func TestConnections(t *testing.T) {
	for _, test := range []struct{ written, dial string }{
		{"tcp4://127.0.0.1:0", "tcp"},
		{":0", "tcp4"},
		{":0", "tcp6"},
		{"[::1]:0", "tcp6"},
		{"unix://" + t.TempDir() + "/a b", "unix"},
		{"unix://@" + t.TempDir(), "unix"},
	} {
		t.Run(test.written+" "+test.dial, func(t *testing.T) {
			l := listenAt(t, test.written)
			first := apptest.Start(t, "hoarder", apptest.Options{Files: []int{l.FD()}})
			second := apptest.Start(t, "hoarder", apptest.Options{Files: []int{l.FD()}})
			both := []int{first.PID, second.PID, first.PID}
			target := l.Bound()
			if port, ok := strings.CutPrefix(target, "[::]:"); ok {
				target = net.JoinHostPort(map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"}[test.dial], port)
			}
			clients := make([]net.Conn, 5)
			for i := range clients {
				clients[i] = apptest.Dial(t, test.dial, target)
			}
			apptest.Eventually(t, "five wait", func() bool { return queuedAt(t, l) == 5 })
			if n := inFlight(t, both, l); n != 0 {
				t.Errorf("%d in flight before any was accepted", n)
			}
			for range 3 {
				first.Do(t, "accept")
			}
			second.Do(t, "accept")
			counts := func() [4]int {
				return [4]int{inFlight(t, []int{first.PID}, l), inFlight(t, []int{second.PID}, l), inFlight(t, both, l, l), queuedAt(t, l)}
			}
			if got, want := counts(), [4]int{3, 1, 4, 1}; got != want {
				t.Errorf("counts %v, not %v", got, want)
			}
			// A connection that the client has closed is the app's to close still.
			for _, c := range clients {
				apptest.Must(t, c.Close())
			}
			if got, want := counts(), [4]int{3, 1, 4, 1}; got != want {
				t.Errorf("counts %v, not %v after the clients have gone", got, want)
			}
			first.Do(t, "close")
			second.Do(t, "close")
			if got, want := counts(), [4]int{2, 0, 2, 1}; got != want {
				t.Errorf("counts %v, not %v after two closes", got, want)
			}
			apptest.Must(t, unix.Kill(first.PID, unix.SIGKILL))
			first.Wait()
			if n := inFlight(t, both, l); n != 0 {
				t.Errorf("%d in flight in a process that has gone", n)
			}
		})
	}
}

func TestConnectionsToOthersAreLeftOut(t *testing.T) {
	port := apptest.FreePort(t, "127.0.0.1").Port()
	l, other := listenAt(t, fmt.Sprintf("tcp4://127.0.0.1:%d", port)), listenAt(t, "unix://"+t.TempDir()+"/s")
	neighbour := listenAt(t, fmt.Sprintf("tcp4://127.0.0.2:%d", port))
	app := apptest.Start(t, "hoarder", apptest.Options{Files: []int{neighbour.FD()}})
	apptest.Dial(t, "tcp", neighbour.Bound())
	app.Do(t, "accept")
	// The app as a client of itself, and of another listener: the far end of these has the listener's port.
	app.Do(t, "dial tcp "+l.Bound())
	app.Do(t, "dial unix "+other.Bound())
	if n := inFlight(t, []int{app.PID}, l, other); n != 0 {
		t.Errorf("%d counted", n)
	}
	if n := inFlight(t, []int{app.PID}, l, neighbour, listenAt(t, "udp4://127.0.0.1:0")); n != 1 {
		t.Errorf("%d counted of one", n)
	}
}

func TestConnectionsWithoutTheRightToLook(t *testing.T) {
	apptest.RequireRoot(t)
	stranger := apptest.Start(t, "counter", apptest.Options{UID: apptest.Nobody})
	if got := stranger.Ask(t, fmt.Sprint(os.Getpid())); !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
	if got := stranger.Ask(t, "zombie"); got != "0 <nil>" {
		t.Errorf("a zombie has %s", got)
	}
}

func TestQueuedOfOtherSockets(t *testing.T) {
	if n := queuedAt(t, listenAt(t, "udp4://127.0.0.1:0")); n != 0 {
		t.Errorf("%d", n)
	}
	l := listenAt(t, "127.0.0.1:0")
	apptest.Dial(t, "tcp", l.Bound())
	apptest.Must(t, unix.Shutdown(l.FD(), unix.SHUT_RD))
	if n := queuedAt(t, l); n != 0 {
		t.Errorf("%d wait at a listener that was shut down", n)
	}
}
