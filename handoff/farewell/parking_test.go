package farewell

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/sibling"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["pausing"] = func() {
		apptest.Obey(func(string) string {
			announcer, err := Open()
			if err == nil {
				err = errors.Join(announcer.unparked, pauseThird(announcer))
			}
			return fmt.Sprint(err)
		})
	}
}

// pauseThird pauses the listener that was passed on as descriptor 3.
func pauseThird(a *Announcer) error {
	at, err := localAddress(3)
	if err != nil {
		return err
	}
	_, err = a.pause(3, places{at}, apptest.Patience)
	return err
}

func parkingAnnouncer(t *testing.T) *Announcer {
	t.Helper()
	a := announcer(t)
	if a.unparked != nil {
		requirement.Check(t, "migration", a.unparked)
	}
	return a
}

// withoutParking is as on a kernel that cannot do it.
func withoutParking(t *testing.T) {
	t.Helper()
	a := announcer(t)
	before := a.unparked
	a.unparked = errors.New("not in this test")
	t.Cleanup(func() { a.unparked = before })
}

// mustWait wants a client to be connected, to have sent its request once, and nobody to be accepted.
func (r *road) mustWait(t *testing.T, f *Farewell) *net.TCPConn {
	t.Helper()
	client := r.knock(t)
	parked := f.announcer.pauses.listeners[f.paused[0].cookie].parked
	if parked == nil {
		t.Fatal("new connections are not parked")
	}
	apptest.Eventually(t, "the request has arrived", func() bool { return info(t, client).Unacked == 0 })
	if n, at := queued(parked.fd), queued(f.paused[0].fd); n != 1 || at != 0 {
		t.Fatalf("%d wait, and %d in the listener's own queue", n, at)
	}
	return client
}

// mustNotSendAgain wants that nothing was dropped.
func mustNotSendAgain(t *testing.T, client *net.TCPConn) {
	t.Helper()
	if n := info(t, client).Total_retrans; n != 0 {
		t.Errorf("%d segments were sent again", n)
	}
}

// mustWaitAndServe wants who connects in a pause to be served after it.
func (r *road) mustWaitAndServe(t *testing.T, f *Farewell) {
	t.Helper()
	apptest.Must(t, f.pauseListeners(apptest.Patience))
	client := r.mustWait(t, f)
	apptest.Must(t, f.Release())
	r.mustAccept(t)
	mustNotSendAgain(t, client)
}

func TestNewConnectionsWaitWhileTheirListenerIsPaused(t *testing.T) {
	parkingAnnouncer(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		for name, http := range map[string]bool{"HTTP": true, "another protocol": false} {
			t.Run(host+" "+name, func(t *testing.T) {
				r := newRoad(t, host)
				f := r.sharing(t, http)
				r.mustWaitAndServe(t, f)
			})
		}
	}
}

// The program of the first pause is still there, and the socket has to be another one.
func TestListenerIsPausedAgain(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	for range 3 {
		f := r.sharing(t, true)
		r.mustWaitAndServe(t, f)
	}
}

// Clients of IPv4 come in at a socket of IPv6.
func TestClientsOfBothFamiliesWait(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "::")
	r.at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), r.at.Port())
	f := r.sharing(t, true)
	f.places = places{netip.AddrPortFrom(netip.IPv6Unspecified(), r.at.Port())}
	r.mustWaitAndServe(t, f)
}

// A handshake that has begun beside the listener ends when its socket has been closed: TCP_DEFER_ACCEPT, which that has inherited, ends it with
// the first data.
func TestHandshakeThatEndsAfterThePause(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, true)
	apptest.Must(t, unix.SetsockoptInt(f.shared[0], unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30))
	apptest.Must(t, f.pauseListeners(apptest.Patience))
	client := apptest.Dial(t, "tcp", r.at.String()).(*net.TCPConn)
	if n := queued(f.announcer.pauses.listeners[f.paused[0].cookie].parked.fd); n != 0 {
		t.Fatalf("%d wait, whose handshakes have ended", n)
	}
	apptest.Must(t, f.Release())
	_, err := io.WriteString(client, get)
	apptest.Must(t, err)
	r.mustAccept(t)
	mustNotSendAgain(t, client)
}

// The kernel closes the socket, and goes on moving connections.
func TestPauseEndsWithItsProcess(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	var fd int
	apptest.Control(r.listener, func(listener int) { fd = listener })
	pausing := apptest.Start(t, "pausing", apptest.Options{Files: []int{fd}})
	pausing.Do(t, "pause")
	client := r.knock(t)
	apptest.Eventually(t, "the request has arrived", func() bool { return info(t, client).Unacked == 0 })
	if n := queued(fd); n != 0 {
		t.Fatalf("%d wait to be accepted", n)
	}
	apptest.Must(t, unix.Kill(pausing.PID, unix.SIGKILL))
	pausing.Wait()
	r.mustAccept(t)
	mustNotSendAgain(t, client)
}

// Whoever else belongs to the user cannot listen beside it for longer than that.
func TestNobodyListensBesideAListenerAfterwards(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, true)
	apptest.Must(t, f.pauseListeners(apptest.Patience))
	apptest.Must(t, f.Release())
	if fd, err := sibling.Bind(f.shared[0]); err != unix.EADDRINUSE {
		t.Errorf("%v", err)
		unix.Close(fd)
	}
}

// Beside one that has SO_REUSEPORT there may be others, with a program of theirs.
func TestListenerWithOthersBesideItIsNotParked(t *testing.T) {
	parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, true)
	apptest.Must(t, unix.SetsockoptInt(f.shared[0], unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	apptest.Must(t, f.pauseListeners(time.Minute))
	r.mustDrop(t, f)
	apptest.Must(t, f.Release())
	r.mustAccept(t)
	if asked, err := unix.GetsockoptInt(f.shared[0], unix.SOL_SOCKET, unix.SO_REUSEPORT); asked != 1 || err != nil {
		t.Errorf("SO_REUSEPORT is %d, %v", asked, err)
	}
}

// A handshake that has begun before the pause may end in its first moment, and not later. TCP_DEFER_ACCEPT has it end with the first data.
func TestHandshakesEndInThePausesFirstMoment(t *testing.T) {
	a := parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	f := r.sharing(t, true)
	fd := f.shared[0]
	apptest.Must(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30))
	soon := apptest.Dial(t, "tcp", r.at.String()).(*net.TCPConn)
	late := apptest.Dial(t, "tcp", r.at.String()).(*net.TCPConn)
	p, err := a.pause(fd, f.places, apptest.Patience)
	apptest.Must(t, err)
	f.paused = append(f.paused, p)
	_, err = io.WriteString(soon, get)
	apptest.Must(t, err)
	apptest.Eventually(t, "one has ended its handshake", func() bool { return queued(fd) == 1 })
	apptest.Must(t, f.dropHandshakes())
	_, err = io.WriteString(late, get)
	apptest.Must(t, err)
	apptest.Eventually(t, "the other one sends again", func() bool { return info(t, late).Total_retrans > 0 })
	if n := queued(fd); n != 1 {
		t.Errorf("%d have ended their handshake", n)
	}
	mustNotSendAgain(t, soon)
	apptest.Must(t, f.Release())
	r.mustAccept(t)
	r.mustAccept(t)
}

// Those that are beyond what the process may have are paused as before.
func TestParkingTakesADescriptor(t *testing.T) {
	parkingAnnouncer(t)
	a, err := Open() // of which no other test has a descriptor
	apptest.Must(t, err)
	t.Cleanup(func() { a.Close() })
	r := newRoad(t, "127.0.0.1")
	var fd int
	apptest.Control(r.listener, func(listener int) { fd = listener })
	p, err := a.pause(fd, places{r.at}, apptest.Patience)
	apptest.Must(t, err)
	if p == nil || a.descriptors.used != 1 {
		t.Fatalf("%+v, and %d descriptors are counted", p, a.descriptors.used)
	}
	a.pauses.end(a, p)
	if a.descriptors.used != 0 {
		t.Errorf("%d descriptors are counted afterwards", a.descriptors.used)
	}
	a.descriptors.limit = 0
	if p, err := a.pause(fd, places{r.at}, apptest.Patience); p != nil || err != nil {
		t.Errorf("it is paused: %+v, %v", p, err)
	}
}

// The kernel resets a connection whose handshake ends in the moment in which its listener is closed.
func TestNoClientIsResetWhenAPauseEnds(t *testing.T) {
	a := parkingAnnouncer(t)
	r := newRoad(t, "127.0.0.1")
	go apptest.CloseAccepted(r.listener)
	var fd int
	apptest.Control(r.listener, func(its int) { fd = its })
	over, connected := make(chan struct{}), make(chan error)
	const clients = 4
	for range clients {
		go func() { connected <- connectAgainAndAgain(r.at, over) }()
	}
	cookie, err := cookieOf(fd)
	apptest.Must(t, err)
	for range 500 {
		p, err := a.park(fd, cookie)
		apptest.Must(t, err)
		apptest.Must(t, a.lead(cookie, p, monotonic()+uint64(time.Minute)))
		apptest.Must(t, a.unpark(p))
	}
	close(over)
	for range clients {
		apptest.Must(t, <-connected)
	}
}

// connectAgainAndAgain wants each connection to be there, and closed by the other side.
func connectAgainAndAgain(at netip.AddrPort, over <-chan struct{}) error {
	to := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	for n := 1; ; n++ {
		select {
		case <-over:
			return nil
		default:
		}
		if err := connectOnce(to); err != nil {
			return fmt.Errorf("connection %d: %w", n, err)
		}
	}
}

func connectOnce(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	if n, err := unix.Read(fd, make([]byte, 1)); n != 0 || err != nil {
		return fmt.Errorf("%d bytes, %w", n, err)
	}
	return nil
}
