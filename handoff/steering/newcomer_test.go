package steering

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/synfilter"
	"golang.org/x/sys/unix"
)

// What an app shuts down by itself changes the numbers of the others before grace can. A connection that begins then
// must not come to another old generation, which may be about to end.
func TestNewcomersDoNotStrayToAnOldGeneration(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "::"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s, at := newSteering(t), reservePort(t, host)
			var old []*appSocket
			for generation := range 4 {
				old = append(old, serve(t, s, InstanceKey{generation, 0}, at))
				_, err := s.Steer(Split{Generation: generation})
				apptest.Must(t, err)
			}
			checkNewcomers(t, s, old[:3], old[3])
		})
	}
}

func checkNewcomers(t *testing.T, s *Steering, old []*appSocket, current *appSocket) {
	t.Helper()
	apptest.Must(t, unix.Shutdown(old[0].fd, unix.SHUT_RD))
	var begun []int
	for range 32 {
		begun = append(begun, begin(t, current))
	}
	_, err := s.Wait() // the numbers are right from here on
	apptest.Must(t, err)
	for _, fd := range begun {
		awaitConnected(t, fd)
	}
	for number, a := range old[1:] {
		if a.accept() >= 0 {
			t.Errorf("generation %d got a connection", number+1)
		}
	}
	for number := range begun {
		a, fd := accepted(current)
		if a == nil {
			t.Fatalf("the current generation got %d connections", number)
		}
		unix.Close(fd)
	}
}

func TestAppsKeepTheirFilters(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	all := [...]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}}
	old, next := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
	apptest.Must(t, unix.SetsockoptSockFprog(old.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all[0]}))
	for _, generation := range []int{2, 1, 2} {
		_, err := s.Steer(Split{Generation: generation})
		apptest.Must(t, err)
		if kind := synfilter.Of(old.fd); kind != synfilter.Foreign {
			t.Errorf("with generation %d selected the filter is %v", generation, kind)
		}
	}
	if connected(t, at, 0, next) == nil {
		t.Error("the selected generation got nothing")
	}
}

// begin sends a SYN.
func begin(t *testing.T, to *appSocket) int {
	t.Helper()
	at, err := unix.Getsockname(to.fd)
	apptest.Must(t, err)
	family := unix.AF_INET
	if _, ok := at.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	a := newAppSocket(t, family)
	if err := unix.Connect(a.fd, at); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	return a.fd
}

func awaitConnected(t *testing.T, fd int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	apptest.Eventually(t, "a client has its connection", func() bool {
		n, _ := unix.Poll(fds, 0) // EINTR if Go's runtime has sent itself a signal
		return n > 0
	})
	if failed, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); failed != 0 || err != nil {
		t.Fatal(unix.Errno(failed), err)
	}
}
