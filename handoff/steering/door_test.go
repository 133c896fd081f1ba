package steering

import (
	"net"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/sibling"
	"golang.org/x/sys/unix"
)

func TestNobodyComesThroughADoor(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			listener, at := alone(t, host)
			defer unix.Close(listener)
			waits := apptest.Dial(t, "tcp", at)
			d, err := Shut(listener)
			apptest.Must(t, err)
			for range 3 {
				checkTurnedAway(t, at)
			}
			apptest.AcceptNext(t, listener, waits)
			late := dialLate("tcp", at)
			apptest.Must(t, d.Close())
			apptest.Must(t, <-late)
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			apptest.Must(t, err)
			apptest.Must(t, unix.Close(fd))
		})
	}
}

// The listener is the first in the group, and when it has gone, its number is the door's: then the kernel chooses among those that are left.
func TestNobodyComesThroughADoorOfAListenerThatWasClosed(t *testing.T) {
	t.Parallel()
	listener, at := alone(t, "127.0.0.1")
	d, err := Shut(listener)
	apptest.Must(t, err)
	apptest.Must(t, unix.Close(listener))
	checkTurnedAway(t, at)
	apptest.Must(t, d.Close())
	if conn, err := net.Dial("tcp", at); err == nil {
		t.Errorf("%v came in when the door was closed", conn.LocalAddr())
	}
}

// Until there is a program the kernel may choose the door for anybody.
func TestNobodyComesWhileADoorIsMade(t *testing.T) {
	t.Parallel()
	listener, at := alone(t, "127.0.0.1")
	defer unix.Close(listener)
	apptest.Must(t, unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	fd, err := sibling.Bind(listener)
	apptest.Must(t, err)
	defer unix.Close(fd)
	apptest.Must(t, setHops(fd, unix.IP_MINTTL, unix.IPV6_MINHOPCOUNT))
	apptest.Must(t, unix.Listen(fd, 0))
	apptest.Must(t, attachSelector(fd, choice{selected: []int{doorNumber}}, nil))
	checkTurnedAway(t, at)
}

func TestNoDoorBesideOthers(t *testing.T) {
	t.Parallel()
	listener, at := alone(t, "127.0.0.1")
	defer unix.Close(listener)
	apptest.Must(t, unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if d, err := Shut(listener); err == nil {
		t.Error("a listener that shares its address was shut", d.Close())
	}
	apptest.Dial(t, "tcp", at)
}

func checkTurnedAway(t *testing.T, at string) {
	t.Helper()
	if conn, err := net.DialTimeout("tcp", at, 50*time.Millisecond); err == nil {
		t.Errorf("%v came in", conn.LocalAddr())
	}
}

// alone gives a listener that has its address for itself, and is the caller's.
func alone(t *testing.T, host string) (fd int, at string) {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // as the listeners of grace are
	ln, err := plain.Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	apptest.Must(t, err)
	file, err := ln.(*net.TCPListener).File()
	apptest.Must(t, err)
	apptest.Must(t, ln.Close())
	fd, err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	apptest.Must(t, err)
	apptest.Must(t, file.Close())
	apptest.Must(t, unix.SetNonblock(fd, false))
	return fd, ln.Addr().String()
}
