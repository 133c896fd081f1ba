package steering

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// outsider is a server that nobody has prepared to be steered; its listener is Go's, which speaks MPTCP unless told otherwise.
type outsider struct {
	t  *testing.T
	ln *net.TCPListener
	at netip.AddrPort
}

func newOutsider(t *testing.T, multipath, shares bool, at string) *outsider {
	t.Helper()
	config := net.ListenConfig{}
	config.SetMultipathTCP(multipath)
	if shares {
		config.Control = func(_, _ string, c syscall.RawConn) (err error) {
			controlled := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			if err == nil {
				err = controlled
			}
			return err
		}
	}
	ln, err := config.Listen(t.Context(), "tcp", at)
	apptest.Must(t, err)
	o := &outsider{t: t, ln: ln.(*net.TCPListener), at: ln.Addr().(*net.TCPAddr).AddrPort()}
	t.Cleanup(func() { ln.Close() })
	return o
}

func (o *outsider) serve(name string) *outsider {
	go http.Serve(o.ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, name)
	}))
	return o
}

func (o *outsider) duplicate() int {
	o.t.Helper()
	conn, err := o.ln.SyscallConn()
	apptest.Must(o.t, err)
	duplicate := -1
	apptest.Must(o.t, conn.Control(func(fd uintptr) { duplicate, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }))
	apptest.Must(o.t, err)
	return duplicate
}

func ask(at netip.AddrPort) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + at.String())
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func wantAnswers(t *testing.T, at netip.AddrPort, want string) {
	t.Helper()
	for range 20 {
		if got := ask(at); got != want {
			t.Fatalf("%q has answered, not %q", got, want)
		}
	}
}

// madeBeside gives a generation its own socket at the address, as a captured app gets it.
func (s *Steering) listenBeside(t *testing.T, m InstanceKey, at netip.AddrPort) net.Listener {
	t.Helper()
	a := newAppSocket(t, map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[at.Addr().Is4()])
	apptest.Must(t, unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	decision, err := s.Bind(m, a.fd, at)
	if err != nil || decision != Steered {
		t.Fatalf("%v, %v", decision, err)
	}
	apptest.Must(t, unix.Bind(a.fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
	apptest.Must(t, s.Listen(m, a.duplicate(), 128))
	file := os.NewFile(uintptr(a.duplicate()), "listener")
	defer file.Close()
	ln, err := net.FileListener(file)
	apptest.Must(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

// A server that was not prepared gets a successor: until the cutover it has all connections, then the other one, and again
// it on the way back. When it is left alone, its socket is as it was.
func TestIncludedSocketsAreSteered(t *testing.T) {
	for _, test := range []struct {
		name      string
		multipath bool
		sockets   int
	}{{"TCP", false, 1}, {"MPTCP", true, 1}, {"three with SO_REUSEPORT", false, 3}} {
		t.Run(test.name, func(t *testing.T) {
			s := newSteering(t)
			first := newOutsider(t, test.multipath, test.sockets > 1, "127.0.0.1:0").serve("old")
			outsiders := []Outsider{{InstanceKey: InstanceKey{-1, 0}, FD: first.duplicate()}}
			for i := 1; i < test.sockets; i++ {
				other := newOutsider(t, test.multipath, true, first.at.String()).serve("old")
				outsiders = append(outsiders, Outsider{InstanceKey: InstanceKey{-1, i}, FD: other.duplicate()})
			}
			apptest.Must(t, s.Include(outsiders))
			wantAnswers(t, first.at, "old")
			apptest.Must(t, s.Include([]Outsider{{InstanceKey: InstanceKey{-1, 0}, FD: first.duplicate()}})) // it is one already
			ln := s.listenBeside(t, InstanceKey{1, 0}, first.at)
			go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "new") }))
			wantAnswers(t, first.at, "old")
			for range 2 {
				_, err := s.Steer(Split{Generation: 1})
				apptest.Must(t, err)
				wantAnswers(t, first.at, "new")
				if n, err := s.Queued(-1); n != 0 || err != nil {
					t.Errorf("%d wait, %v", n, err)
				}
				_, err = s.Steer(Split{Generation: -1})
				apptest.Must(t, err)
				wantAnswers(t, first.at, "old")
			}
			apptest.Must(t, s.Retire(InstanceKey{1, 0}))
			wantAnswers(t, first.at, "old")
			apptest.Must(t, s.GiveBack(-1))
			wantAnswers(t, first.at, "old")
			if test.sockets > 1 {
				return
			}
			if ln, err := net.Listen("tcp", first.at.String()); err == nil {
				ln.Close()
				t.Error("another program can bind the address beside the server")
			}
			fd := first.duplicate()
			defer unix.Close(fd)
			if shares, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); shares != 0 || err != nil {
				t.Errorf("SO_REUSEPORT is %d, %v", shares, err)
			}
		})
	}
}

// Where it cannot be done nothing is changed.
func TestIncludeFailsWithoutATrace(t *testing.T) {
	s := newSteering(t)
	o := newOutsider(t, false, false, "127.0.0.1:0").serve("old")
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	apptest.Must(t, err)
	defer unix.Close(pair[1])
	if err := s.Include([]Outsider{{InstanceKey: InstanceKey{-1, 0}, FD: o.duplicate()}, {InstanceKey: InstanceKey{-1, 0}, FD: pair[0]}}); err == nil {
		t.Fatal("a socket that is none was included")
	}
	if places := s.Places(-1); len(places) > 0 {
		t.Errorf("%v were included", places)
	}
	wantAnswers(t, o.at, "old")
	if ln, err := net.Listen("tcp", o.at.String()); err == nil {
		ln.Close()
		t.Error("another program can bind the address beside the server")
	}
}
